//! Which characters of a line of the file are not shown, for they may be a secret. A line that is hidden too much costs a look
//! into the file, one that is shown too much costs a secret: whatever is in doubt is hidden.

/// Parts of words after which a secret may stand.
const SECRET: [&str; 17] = [
    "secret",
    "passw",
    "passphrase",
    "pwd",
    "token",
    "credential",
    "auth",
    "cookie",
    "session",
    "bearer",
    "signature",
    "private",
    "api_key",
    "api-key",
    "apikey",
    "-key",
    "_key",
];

/// What follows one of these is a credential, wherever it stands (RFC 9110 §11.6.2).
const SCHEMES: [&str; 5] = ["bearer", "basic", "digest", "negotiate", "token"];

/// True when `words`, a line or the path of a problem, speak of a secret.
pub(super) fn sounds_secret(words: &str) -> bool {
    let words = words.to_lowercase();
    let whole = |word: &str| matches!(word, "key" | "keys" | "pem");
    end_of_secret_word(&words).is_some() || words.split(|c: char| !c.is_alphanumeric()).any(whole)
}

/// Where the first part that speaks of a secret ends, in bytes.
fn end_of_secret_word(lower: &str) -> Option<usize> {
    SECRET.iter().filter_map(|part| lower.find(part).map(|at| at + part.len())).min()
}

/// True when the line at `index` belongs to a key that sounds like a secret, or to something in PEM.
pub(super) fn below_a_secret(lines: &[&str], index: usize) -> bool {
    let Some(line) = lines.get(index) else { return false };
    let mut list = line.trim_start().starts_with('-');
    let mut indent = columns_before(line);
    // Text without a key goes on with the value of the last one, in whatever column it stands.
    let mut text = !list && !has_key(line);
    let (mut nearest, mut ended) = (true, false);
    for above in lines[..index].iter().rev() {
        ended |= above.contains("-----END");
        if above.contains("-----BEGIN") && !ended {
            return true;
        }
        let words = above.trim();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        let before = columns_before(above);
        // The items of a list may stand right below their key.
        let around = before < indent || list && before == indent && !words.starts_with('-');
        // What has begun and goes on here, in whatever column.
        let goes_on = nearest && !list && words.ends_with([':', '[', '{', '|', '>', '-', '\\']);
        if (around || goes_on || text) && sounds_secret(above) {
            return true;
        }
        nearest = false;
        text &= !has_key(above);
        if around {
            indent = before;
            list = words.starts_with('-');
        }
    }
    false
}

fn has_key(line: &str) -> bool {
    line.trim_end().ends_with(':') || line.contains(": ")
}

fn columns_before(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).count()
}

/// For each character of `line`, whether it is hidden. `secret`: every value, for the line is about one.
pub(super) fn hidden(line: &[char], secret: bool) -> Vec<bool> {
    let mut reading = Reading { line, mask: vec![false; line.len()], secret, depth: 0, may_be_key: true };
    let mut at = 0;
    while at < line.len() {
        at = reading.step(at);
    }
    let mut mask = reading.mask;
    schemes(line, &mut mask);
    urls(line, &mut mask);
    mask
}

/// A line that is read from left to right.
struct Reading<'a> {
    line: &'a [char],
    mask: Vec<bool>,
    /// What follows may be a secret.
    secret: bool,
    /// How many `{` and `[` are open.
    depth: usize,
    /// A key may begin here.
    may_be_key: bool,
}

impl Reading<'_> {
    /// Reads what begins `at`, and says where it ends.
    fn step(&mut self, at: usize) -> usize {
        let (c, next) = (self.line[at], self.line.get(at + 1));
        match c {
            '{' | '[' => {
                self.depth += 1;
                // A list of what is secret has no keys.
                self.may_be_key = c == '{' || !self.secret;
            }
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.may_be_key = false;
            }
            ',' => self.may_be_key = true,
            ':' if next.is_none_or(|next| next.is_whitespace()) => self.may_be_key = !self.secret,
            '-' if next.is_none_or(|next| next.is_whitespace())
                && self.line[..at].iter().all(|c| " \t-".contains(*c)) => {}
            c if c.is_whitespace() => {}
            _ => return self.word(at),
        }
        at + 1
    }

    fn word(&mut self, at: usize) -> usize {
        let end = self.end(at);
        let text: String = self.line[at..end].iter().collect();
        let after = self.line[end..].iter().position(|c| !c.is_whitespace()).map(|blank| end + blank);
        let colon = after.filter(|colon| self.line[*colon] == ':');
        let is_key = colon.is_some_and(|colon| self.line.get(colon + 1).is_none_or(|next| next.is_whitespace()));
        let plain = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
        if is_key && self.may_be_key && (!self.secret || text.chars().all(plain)) {
            self.secret |= sounds_secret(&text);
            self.value_of(&text, colon.unwrap_or(end) + 1);
            return end;
        }
        self.may_be_key = false;
        if self.secret {
            let end = if self.depth == 0 && !text.starts_with(['"', '\'']) { self.line.len() } else { end };
            if !names_a_variable(&self.line[at..end]) {
                self.hide(at, end);
            }
            return end;
        }
        // `${TOKEN}` says only where the secret is.
        if sounds_secret(&text) && !names_a_variable(&self.line[at..end]) {
            let lower: Vec<String> = text.chars().map(|c| c.to_lowercase().collect()).collect();
            let word = (1..=lower.len()).find(|length| sounds_secret(&lower[..*length].concat()));
            self.hide(at + word.unwrap_or(0), end);
            self.secret = true;
        }
        end
    }

    /// The names of variables and files are no secrets, but what somebody wrote for them may be.
    fn value_of(&mut self, key: &str, from: usize) {
        let Some(start) = self.line[from..].iter().position(|c| !c.is_whitespace()).map(|at| from + at) else { return };
        let end = self.end(start);
        let value = &self.line[start..end];
        let harmless = match key.trim_matches(['"', '\'']).to_lowercase().as_str() {
            "env" => value.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_'),
            "file" => value.contains(&'/') || value.first() == Some(&'{'),
            _ => true,
        };
        if !harmless {
            self.hide(start, end);
        }
    }

    /// Where a quotation or a word ends that begins `at`; the blanks behind it are not part of it.
    fn end(&self, at: usize) -> usize {
        let line = self.line;
        if let quote @ ('"' | '\'') = line[at] {
            let mut i = at + 1;
            while i < line.len() && line[i] != quote {
                i += if quote == '"' && line[i] == '\\' { 2 } else { 1 };
            }
            return (i + 1).min(line.len());
        }
        if line[at] == '#' {
            return line.len();
        }
        let variable = line[at..].starts_with(&['$', '{']).then(|| line[at..].iter().position(|c| *c == '}')).flatten();
        let from = variable.map_or(at + 1, |end| at + end + 1);
        let ends = |i: &usize| match line[*i] {
            '{' | '}' | '[' | ']' | ',' => true,
            '#' => line[i - 1].is_whitespace(),
            ':' => line.get(i + 1).is_none_or(|next| next.is_whitespace()),
            _ => false,
        };
        let end = (from..line.len()).find(ends).unwrap_or(line.len());
        end - line[from..end].iter().rev().take_while(|c| c.is_whitespace()).count()
    }

    fn hide(&mut self, from: usize, to: usize) {
        hide(&mut self.mask, from, to);
    }
}

fn hide(mask: &mut [bool], from: usize, to: usize) {
    if let Some(part) = mask.get_mut(from..to) {
        part.fill(true);
    }
}

/// `${NAME}` and nothing else: a default behind the name may be the secret.
fn names_a_variable(value: &[char]) -> bool {
    let text: String = value.iter().collect();
    let name = text.trim().trim_matches(['"', '\'']).strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// What follows `Bearer` and the like, up to the end of the quotation or the line.
fn schemes(line: &[char], mask: &mut [bool]) {
    for at in (0..line.len()).filter(|at| *at == 0 || !line[at - 1].is_alphanumeric()) {
        let word: String = line[at..].iter().take_while(|c| c.is_alphabetic()).flat_map(|c| c.to_lowercase()).collect();
        let end = at + word.chars().count();
        if SCHEMES.contains(&word.as_str()) && line.get(end).is_some_and(|c| c.is_whitespace()) {
            let to = line[end..].iter().position(|c| "\"'".contains(*c)).map_or(line.len(), |length| end + length);
            hide(mask, end + 1, to);
        }
    }
}

/// Of URLs what stands before the last `@`, and what follows the first `?` or `#`.
fn urls(line: &[char], mask: &mut [bool]) {
    let quote = |c: &char| "\"'".contains(*c);
    for at in 0..line.len() {
        let end = line[at..].iter().position(quote).map_or(line.len(), |length| at + length);
        if line[at..].starts_with(&[':', '/', '/']) {
            let from = at + 3;
            if let Some(last) = line.get(from..end).and_then(|rest| rest.iter().rposition(|c| *c == '@')) {
                hide(mask, from, from + last);
            }
            let word =
                from + line[from..].iter().position(|c| c.is_whitespace() || quote(c)).unwrap_or(line.len() - from);
            if let Some(fragment) = line[from..word].iter().position(|c| *c == '#') {
                hide(mask, from + fragment + 1, word);
            }
        }
        if line[at] == '?' && at > 0 && !line[at - 1].is_whitespace() {
            let blank = line[at..].iter().position(|c| c.is_whitespace()).map_or(line.len(), |length| at + length);
            hide(mask, at + 1, blank.min(end));
        }
        // Without a scheme: `user:password@host`.
        if line[at] == '@' {
            let begins = |c: &char| c.is_whitespace() || quote(c) || "[{,(".contains(*c);
            let start = line[..at].iter().rposition(begins).map_or(0, |start| start + 1);
            if line[start..at].contains(&':') && !line[start..at].windows(3).any(|three| three == [':', '/', '/']) {
                hide(mask, start, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_know_what_they_stand_below() {
        for (text, expected) in [
            ("set:\n  Authorization:\n    - x", true),
            ("Authorization:\n- x\n- y", true),
            ("Authorization: >\n  x\n\n  y", true),
            ("a: {\n  Authorization:\n  x", true),
            ("  Authorization: >\n    x\n y", true),
            ("  Authorization: >\n    x\n y: z", false),
            ("pem: |\n  -----BEGIN X\n  x", true),
            ("a:\n-----BEGIN X\nx\n-----END X\n  b: y", false),
            ("Authorization: x\nb: y", false),
            ("a:\n  # the token\n  b: y", false),
            ("filters:\n  - api_key\n  - rate_limit: 1", false),
        ] {
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(below_a_secret(&lines, lines.len() - 1), expected, "{text}");
        }
    }
}
