//! `headers`: edits of the request on its way to the backend and of the answer on its way back.
//!
//! YAML: `headers: { request: { set: { X-Env: prod }, remove: [X-Debug] }, response: { add: { X-Served-By: tollgate } } }`.
//! Per direction: `remove` first, then `set` (replaces), then `add` (appends). Framing and hop-by-hop fields are not
//! for editing: whoever changes `Content-Length` by hand lets two parsers disagree.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;

use crate::{
    filter::{Configure, Env, Fault, Filter, Invalid, State, env::schema_of},
    message::{
        edit::{Edit as _, FieldsMut},
        fields, hop_by_hop,
    },
};

/// Settings of `headers`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HeadersSettings")]
pub(crate) struct Config {
    /// What the backend will see.
    #[serde(default)]
    request: HeaderEditsConfig,
    /// What the client will see.
    #[serde(default)]
    response: HeaderEditsConfig,
}

/// Edits of one direction.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEditsConfig {
    /// Replaces whatever stands there.
    pub set: BTreeMap<String, String>,
    /// Appends one more value.
    pub add: BTreeMap<String, String>,
    /// Takes away every value.
    pub remove: Vec<String>,
}

/// Edits, ready to apply.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Checks names and values; mistakes go to `invalid` under `path`.
    pub fn build(config: &HeaderEditsConfig, path: &str, invalid: &mut Invalid) -> Self {
        let mut name_of = |name: &str, path: String| match name.parse::<HeaderName>() {
            Ok(parsed) if hop_by_hop::NOT_EDITABLE.contains(&parsed) => {
                invalid.push(path, format!("'{name}' belongs to the connection and cannot be edited"));
                None
            }
            Ok(parsed) => Some(parsed),
            Err(_) => {
                invalid.push(path, format!("'{name}' is not a header name"));
                None
            }
        };
        let remove = config.remove.iter().enumerate();
        let remove = remove.filter_map(|(i, name)| name_of(name, format!("{path}.remove[{i}]"))).collect();
        let mut pairs = |map: &BTreeMap<String, String>, list: &str| -> Vec<(HeaderName, String, String)> {
            let named = map.iter().map(|(name, value)| (name, value, format!("{path}.{list}.{name}")));
            named.filter_map(|(name, value, at)| Some((name_of(name, at.clone())?, value.clone(), at))).collect()
        };
        let (set, add) = (pairs(&config.set, "set"), pairs(&config.add, "add"));
        let mut values = |pairs: Vec<(HeaderName, String, String)>| -> Vec<(HeaderName, HeaderValue)> {
            let mut good = Vec::new();
            for (name, value, at) in pairs {
                match HeaderValue::try_from(&value) {
                    Ok(value) => good.push((name, value)),
                    Err(_) => invalid.push(at, "the value holds a character that headers cannot carry"),
                }
            }
            good
        };
        Self { set: values(set), add: values(add), remove }
    }

    fn request(&self, head: &mut RequestHeader) -> pingora::Result<()> {
        // What is removed or set goes in every spelling.
        let edited = || self.remove.iter().chain(self.set.iter().map(|(name, _)| name));
        for name in fields::other_spellings(&head.headers, edited).iter().chain(&self.remove) {
            head.remove_header(name);
        }
        head.edit(|fields| self.write(fields))
    }

    fn write(&self, fields: &mut dyn FieldsMut) -> pingora::Result<()> {
        for (name, value) in &self.set {
            fields.insert(name.clone(), value.clone())?;
        }
        for (name, value) in &self.add {
            fields.append(name.clone(), value.clone())?;
        }
        Ok(())
    }

    fn response(&self, head: &mut ResponseHeader) -> pingora::Result<()> {
        for name in &self.remove {
            head.remove_header(name);
        }
        head.edit(|fields| self.write(fields))
    }
}

#[derive(Debug)]
pub(crate) struct Headers {
    request: HeaderEdits,
    response: HeaderEdits,
}

impl Configure for Headers {
    const NAME: &'static str = "headers";
    const SAMPLES: [&'static str; 2] = [
        "{ request: { set: { X-S: '1' }, add: { X-T: '1' }, remove: [X-U] }, response: { set: { X-S: '1' }, \
         add: { X-T: '1' }, remove: [X-U] } }",
        "{ request: { set: { X-S: '2' }, add: { X-T: '2' }, remove: [X-V] }, response: { set: { X-S: '2' }, \
         add: { X-T: '2' }, remove: [X-V] } }",
    ];
    type Config = Config;

    fn configure(config: Config, _: &Env) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let request = HeaderEdits::build(&config.request, "request", &mut invalid);
        let response = HeaderEdits::build(&config.response, "response", &mut invalid);
        invalid.into_result().map(|()| Self { request, response })
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        schema_of::<Config>(generator)
    }
}

#[async_trait]
impl Filter for Headers {
    fn upstream(&self, head: &mut RequestHeader, _: &State) -> Result<(), Fault> {
        self.request.request(head).map_err(|e| Fault(e.to_string()))
    }

    fn response(&self, head: &mut ResponseHeader, _: &mut State) -> Result<(), Fault> {
        self.response.response(head).map_err(|e| Fault(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn removes_then_sets_then_adds() {
        let config = HeaderEditsConfig {
            set: [("X-A".to_owned(), "new".to_owned())].into(),
            add: [("X-A".to_owned(), "more".to_owned())].into(),
            remove: vec!["X-B".into()],
        };
        let mut invalid = Invalid::default();
        let edits = HeaderEdits::build(&config, "request", &mut invalid);
        let mut head = RequestHeader::build("GET", b"/", None).unwrap();
        head.insert_header("X-A", "old").unwrap();
        head.insert_header("X-B", "gone").unwrap();
        edits.request(&mut head).unwrap();
        let values: Vec<_> = head.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["new", "more"]);
        assert!(!head.headers.contains_key("x-b"));
    }

    #[test]
    fn framing_is_not_for_editing() {
        let config =
            HeaderEditsConfig { remove: vec!["Content-Length".into(), "bad name".into()], ..Default::default() };
        let mut invalid = Invalid::default();
        HeaderEdits::build(&config, "response", &mut invalid);
        assert_eq!(invalid.0.len(), 2);
        assert_eq!(invalid.0[0].0, "response.remove[0]");
    }
}
