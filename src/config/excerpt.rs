//! The line of the file that a problem is in, with a mark below the place: for people at a terminal. What may be a secret is
//! not shown: a file that is wrong may hold one where none belongs.

use super::hidden::{below_a_secret, hidden, sounds_secret};

/// So much of a line is shown.
const WIDTH: usize = 100;

/// Nobody wrote a longer line, and nobody would find the place in it.
const LONGEST: usize = 10_000;

/// The line as it is shown, and how many columns stand before the place.
pub(super) struct Excerpt {
    pub(super) line: String,
    pub(super) before: usize,
}

/// The line `number` of `text`, when it can be shown. `path` is what the problem is about.
pub(super) fn excerpt(text: &str, number: usize, column: usize, path: &str) -> Option<Excerpt> {
    // A key of a `jwt` that is written in the wrong way may be the key itself.
    if path.split(['.', '[']).any(|step| matches!(step, "keys" | "secret")) {
        return None;
    }
    let index = number.checked_sub(1)?;
    let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().take(number).collect();
    let line = *lines.get(index)?;
    if line.len() > LONGEST || line.contains("-----") || line.trim().is_empty() {
        return None;
    }
    let at = column.saturating_sub(1);
    let chars: Vec<char> = line.chars().collect();
    let hidden = hidden(&chars, sounds_secret(path) || below_a_secret(&lines, index));
    let mut shown: Vec<(usize, String)> = Vec::new();
    for (i, c) in chars.iter().enumerate() {
        match (hidden[i], i > 0 && hidden[i - 1]) {
            (true, true) => {}
            (true, false) => shown.push((i, "***".to_owned())),
            (false, _) => shown.push((i, visible(*c))),
        }
    }
    let place = shown.iter().rposition(|(i, _)| *i <= at).unwrap_or(0);
    // One beyond the end of the line is where something is missing.
    let place = if at >= chars.len() { shown.len() } else { place };
    let (first, last) = window(&shown, place);
    let cut = |yes: bool| if yes { "…" } else { "" };
    let words = |part: &[(usize, String)]| part.iter().map(|(_, text)| text.as_str()).collect::<String>();
    let before = cut(first > 0).to_owned() + &words(&shown[first..place]);
    let after = words(&shown[place..last]) + cut(last < shown.len());
    Some(Excerpt { before: columns(&before), line: before + &after })
}

/// Which part of a long line is shown around `place`.
fn window(shown: &[(usize, String)], place: usize) -> (usize, usize) {
    let width = |(_, text): &(usize, String)| columns(text);
    let (mut first, mut last, mut taken) = (place, place, 0);
    while first > 0 && taken + width(&shown[first - 1]) <= WIDTH * 2 / 3 {
        first -= 1;
        taken += width(&shown[first]);
    }
    while last < shown.len() && taken + width(&shown[last]) <= WIDTH {
        taken += width(&shown[last]);
        last += 1;
    }
    (first, last)
}

/// What stands for a character: a terminal obeys some of them.
fn visible(c: char) -> String {
    match c {
        '\t' => "    ".to_owned(),
        // They turn the direction of what follows, or cannot be seen.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => "·".to_owned(),
        c if c.is_control() => "·".to_owned(),
        c => c.to_string(),
    }
}

/// How many columns of a terminal `text` takes.
fn columns(text: &str) -> usize {
    text.chars().map(column_width).sum()
}

fn column_width(c: char) -> usize {
    match u32::from(c) {
        // Put onto what stands before them.
        0x300..=0x36f | 0x1ab0..=0x1aff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        // East Asian wide and full-width characters, and emoji.
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn shown(line: &str, column: usize) -> (String, usize) {
        let Excerpt { line, before } = excerpt(line, 1, column, "a").unwrap();
        (line, before)
    }

    #[test]
    fn the_mark_stands_below_the_place() {
        assert_eq!(shown("a: 1", 4), ("a: 1".into(), 3));
        assert_eq!(shown("\ta: 1", 5), ("    a: 1".into(), 7));
        assert_eq!(shown("名: x", 4), ("名: x".into(), 4));
        assert_eq!(shown("e\u{301}: x", 5), ("e\u{301}: x".into(), 3));
        assert_eq!(shown("a: \u{202e}x\u{1b}[0m", 5), ("a: ·x·[0m".into(), 4));
        assert_eq!(shown("a: [", 5), ("a: [".into(), 4));
        assert!(excerpt("a", 2, 1, "").is_none() && excerpt("", 1, 1, "").is_none());
        let long = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let (line, before) = shown(&long, 501);
        assert!(columns(&line) <= WIDTH + 2 && line.starts_with('…') && line.ends_with('…'));
        assert_eq!(line.chars().nth(before), Some('X'));
    }

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (line, expected) in [
            ("secret: hunter2", "secret: ***"),
            ("keys: [{ secret: hunter2 }, x]", "keys: [{ secret: *** }, ***]"),
            ("Authorization: \"Bearer hunter2, x\" # y", "Authorization: *** ***"),
            ("Authorization: [hunter2]", "Authorization: [***]"),
            ("Authorization: [hunter2: hunter2]", "Authorization: [***: ***]"),
            ("Authorization: hunter2: hunter2, hunter2: x", "Authorization: ***"),
            ("Cookie: [ session=hunter2 ]", "Cookie: [ *** ]"),
            ("X-Api-Key: hunter2 hunter2", "X-Api-Key: ***"),
            ("X-Api-Key : [hunter2]", "X-Api-Key : [***]"),
            ("X-Api-Key : \"hunter2", "X-Api-Key : ***"),
            ("{ x: \"Bearer hunter2\" }", "{ x: \"Bearer*** }"),
            ("{ x: \"Basic hunter2\", y: z }", "{ x: \"Basic ***\", y: z }"),
            ("{ x: 'Cookie: hunter2', y: z }", "{ x: 'Cookie***, y: *** }"),
            ("x: abc?hunter2", "x: abc?***"),
            ("url: \"http://127.0.0.1:1/?q=hunter2\"", "url: \"http://127.0.0.1:1/?***\""),
            ("url: http://h/#hunter2", "url: http://h/#***"),
            ("url: hunter1:hunter2@h", "url: ***@h"),
            ("url: http://u:hunter2@h/", "url: http://***@h/"),
            ("urls: [\"http://u:hunter2@h\", 'http://v']", "urls: [\"http://***@h\", 'http://v']"),
            ("db_password:   'hunter2'", "db_password:   ***"),
            ("secret: { env: NAME }", "secret: { env: *** }"),
            ("secret: ${SECRET}", "secret: ${SECRET}"),
            ("secret: { a: ${SECRET}, b: \"${SECRET}\" }", "secret: { a: ${SECRET}, b: \"${SECRET}\" }"),
            ("secret: ${SECRET:-hunter2}", "secret: ***"),
            ("header: X-API-KEY", "header: X-API-KEY"),
            ("env: hunter2", "env: ***"),
            ("{ env: NAME, file: /run/hunter }", "{ env: NAME, file: /run/hunter }"),
            ("{ file: hunter2 }", "{ file: *** }"),
            ("a: b # password hunter2", "a: b # passw***"),
        ] {
            assert_eq!(shown(line, 1).0, expected);
        }
        assert_eq!(shown("{ a: 1, token: hunter2, b: 3 }", 25), ("{ a: 1, token: ***, b: *** }".into(), 20));
        assert!(excerpt("- hunter2", 1, 3, "filters[0].jwt.keys[0]").is_none());
        assert!(excerpt("file: hunter2", 1, 3, "services.s.sticky.secret.file").is_none());
        assert!(excerpt("k: -----BEGIN PRIVATE KEY-----", 1, 3, "k").is_none());
        let of = |text: &str, number, path: &str| excerpt(text, number, 1, path).map(|excerpt| excerpt.line);
        assert_eq!(of("{ a: hunter2, b: [hunter2] }", 1, "set.Authorization").as_deref(), Some("{ a: ***, b: [***] }"));
        assert_eq!(of("Cookie:\n  - hunter2 x", 2, "a").as_deref(), Some("  - ***"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in ".{0,40}", column in 0..60usize) {
            let _ = excerpt(&text, 1, column, "");
        }
    }
}
