//! Tags that a backend gives an answer, so that all answers with one can be purged at once: `Surrogate-Key` (separated by
//! spaces) and `Cache-Tag` (by commas). Case counts.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::refusal::Refusal;
use crate::message::fields;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
static FIELDS: [HeaderName; 2] = [SURROGATE_KEY, CACHE_TAG];

/// The most tags of an answer: one that has more could not be found by all of them, and is not kept.
const MOST: usize = 128;
/// The most bytes of a tag.
const LONGEST: usize = 256;

/// Tags, each once.
pub type Tags = Box<[Arc<[u8]>]>;

/// Checks that an answer can be found by all of its tags.
///
/// # Errors
/// It has too many, or too long ones.
pub fn check(response: &HeaderMap) -> Result<(), Refusal> {
    if has_none(response) {
        return Ok(());
    }
    let (mut count, mut longest) = (0, 0);
    for tag in read(response) {
        count += 1;
        longest = longest.max(tag.len());
    }
    if count > MOST || longest > LONGEST { Err(Refusal::Tags) } else { Ok(()) }
}

/// The tags of an answer, each once.
pub fn of(response: &HeaderMap) -> Tags {
    if has_none(response) {
        return Tags::default();
    }
    let mut tags: Vec<Arc<[u8]>> = read(response).map(Arc::from).collect();
    tags.sort_unstable();
    tags.dedup();
    tags.into()
}

fn has_none(response: &HeaderMap) -> bool {
    fields::present(response, &FIELDS) == [false; 2]
}

fn read(response: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = |field| response.get_all(field).iter().map(HeaderValue::as_bytes);
    let keys = lines(SURROGATE_KEY).flat_map(|line| line.split(u8::is_ascii_whitespace));
    let tags = lines(CACHE_TAG).flat_map(|line| line.split(|byte| *byte == b','));
    keys.chain(tags).map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn both_fields_count() {
        let mut headers = HeaderMap::new();
        assert!(of(&headers).is_empty());
        headers.append(SURROGATE_KEY, HeaderValue::from_static("product-1  home"));
        headers.append(CACHE_TAG, HeaderValue::from_static("home, big sale,, Home"));
        let tags: Vec<_> = of(&headers).iter().map(|tag| String::from_utf8_lossy(tag).into_owned()).collect();
        assert_eq!(tags, ["Home", "big sale", "home", "product-1"]);
        assert_eq!(check(&headers), Ok(()));
        headers.append(CACHE_TAG, HeaderValue::from_str(&"x".repeat(LONGEST + 1)).unwrap());
        assert_eq!(check(&headers), Err(Refusal::Tags));
        headers.clear();
        headers.append(SURROGATE_KEY, HeaderValue::from_str(&"x ".repeat(MOST + 1)).unwrap());
        assert_eq!(check(&headers), Err(Refusal::Tags));
    }
}
