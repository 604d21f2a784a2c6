//! What a syntax error most likely comes from, when the parser's own words do not say it.

/// In brackets YAML takes a brace for the beginning of a mapping, also within a word: `{ path: /orders/{id} }`.
pub(super) fn unquoted_brace(text: &str, line: usize, column: usize) -> Option<String> {
    let line: Vec<char> = text.lines().nth(line.checked_sub(1)?)?.chars().collect();
    let at = column.checked_sub(1)?;
    let ends = |c: &char| c.is_whitespace() || "[]{},\"'".contains(*c);
    if line.get(at) != Some(&'{') || line.get(at.checked_sub(1)?).is_none_or(ends) {
        return None;
    }
    let start = line[..at].iter().rposition(ends).map_or(0, |before| before + 1);
    let (mut open, mut end) = (0, line.len());
    for (i, c) in line.iter().enumerate().skip(at) {
        match c {
            '{' => open += 1,
            '}' if open > 0 => open -= 1,
            c if open == 0 && ends(c) => {
                end = i;
                break;
            }
            _ => {}
        }
    }
    let word: String = line[start..end].iter().collect();
    // Anything but a path may be a secret.
    let word = if word.starts_with('/') { format!(": \"{word}\"") } else { String::new() };
    Some(format!(" (within brackets, a value that has a brace in it stands in quotes{word})"))
}

#[cfg(test)]
mod tests {
    use super::unquoted_brace;

    #[test]
    fn a_brace_within_a_word_wants_quotes() {
        let hint = |text: &str| unquoted_brace(text, 1, text.find('@').map_or(0, |at| at + 1));
        let marked = |text: &str| {
            let column = text.find('@').map_or(0, |at| at + 1);
            unquoted_brace(&text.replacen('@', "", 1), 1, column).unwrap_or_default()
        };
        assert!(marked("m: { path: /orders/@{id} }").ends_with("quotes: \"/orders/{id}\")"));
        assert!(marked("m: { path: /orders/@{id}}").ends_with("quotes: \"/orders/{id}\")"));
        assert!(marked("m: { path: [/a/@{id}/{x}, /b] }").ends_with("quotes: \"/a/{id}/{x}\")"));
        assert!(marked("m: { url: http://@${HOST}:80 }").is_empty());
        assert!(marked("m: { url: http://$@{HOST}:80 }").ends_with("in quotes)"));
        assert!(marked("m: { a: b @{ c }").is_empty());
        assert_eq!(hint(""), None);
        assert_eq!(unquoted_brace("a", 7, 7), None);
    }
}
