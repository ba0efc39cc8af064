//! A filter string in pieces. The signs of MLflow's filters are SQL's, as the parser that MLflow uses splits them.

/// What a piece is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A name, which may have parts in backticks or double quotes. A text in double quotes is one too.
    Name,
    /// A word that is never a name.
    Keyword,
    /// A number.
    Number,
    /// A text in single quotes.
    Text,
    /// A comparison.
    Operator,
    /// What stands in parentheses, with them.
    Parenthesis,
    /// A sign that has no place in a filter.
    Other,
}

/// A piece of a filter string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Token<'t> {
    pub kind: Kind,
    pub raw: &'t str,
}

impl Token<'_> {
    /// Whether it is this keyword.
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Keyword && self.raw.eq_ignore_ascii_case(word)
    }
}

const KEYWORDS: [&str; 8] = ["AND", "OR", "NOT", "IN", "IS", "NULL", "TRUE", "FALSE"];
const OPERATOR_WORDS: [&str; 3] = ["LIKE", "ILIKE", "RLIKE"];

/// Signs that a name may hold without quotes, beside letters and digits.
fn is_bare(sign: char) -> bool {
    sign.is_alphanumeric() || "_./-@:$#".contains(sign)
}

/// All pieces. Whatever the text, it is all in them, less the blanks between.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else {
            return tokens;
        };
        let (kind, length) = token(rest, first);
        let (raw, after) = rest.split_at(length);
        tokens.push(Token { kind, raw });
        rest = after;
    }
}

/// The piece that a text begins with, and its length.
fn token(text: &str, first: char) -> (Kind, usize) {
    if let Some(length) = number(text) {
        let rest = &text[length..];
        // `1a` is no number.
        if !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            return (Kind::Number, length);
        }
        if first.is_ascii_digit() {
            return (Kind::Name, length + bare(rest));
        }
    }
    match first {
        '\'' => match quoted(text, '\'') {
            Some(length) => (Kind::Text, length),
            None => (Kind::Other, 1),
        },
        '(' => match parenthesis(text) {
            Some(length) => (Kind::Parenthesis, length),
            None => (Kind::Other, 1),
        },
        '<' | '>' | '=' | '~' | '!' => {
            let length = text.find(|c| !"<>=~!".contains(c)).unwrap_or(text.len());
            (Kind::Operator, length)
        }
        '`' | '"' | '_' => name(text),
        first if first.is_alphabetic() => name(text),
        first => (Kind::Other, first.len_utf8()),
    }
}

/// The length of a number.
fn number(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(sign);
    let mut end = sign + whole;
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    Some(end)
}

/// The length of the signs that need no quotes.
fn bare(text: &str) -> usize {
    text.find(|c| !is_bare(c)).unwrap_or(text.len())
}

/// A name: parts joined by dots, each bare or in quotes.
fn name(text: &str) -> (Kind, usize) {
    let mut end = 0;
    loop {
        let rest = &text[end..];
        let at_part = end == 0 || text[..end].ends_with('.');
        let part = match rest.chars().next() {
            Some(quote @ ('`' | '"')) if at_part => quoted(rest, quote).unwrap_or(0),
            Some('.') if end > 0 => bare(rest),
            Some(sign) if at_part && is_bare(sign) => bare(rest),
            _ => 0,
        };
        if part == 0 {
            break;
        }
        end += part;
    }
    if end == 0 {
        return (Kind::Other, 1);
    }
    let raw = &text[..end];
    let among = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(raw));
    if among(&KEYWORDS) {
        (Kind::Keyword, end)
    } else if among(&OPERATOR_WORDS) {
        (Kind::Operator, end)
    } else {
        (Kind::Name, end)
    }
}

/// The length of a text in quotes. A quote is part of the text when it is doubled or, unless it is a backtick, when a backslash is
/// before it, but only if the text ends after that.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let bytes = text.as_bytes();
    let quote = quote as u8;
    let mut at = 1;
    let mut earlier_end = None;
    while let Some(&byte) = bytes.get(at) {
        let next_is_quote = bytes.get(at + 1) == Some(&quote);
        if byte == quote && next_is_quote {
            earlier_end = Some(at + 1);
            at += 2;
        } else if byte == b'\\' && next_is_quote && quote != b'`' {
            earlier_end = Some(at + 2);
            at += 2;
        } else if byte == quote {
            return Some(at + 1);
        } else {
            at += 1;
        }
    }
    earlier_end
}

/// The length up to the closing parenthesis. Quotes in it follow Python's rules, as lists do.
fn parenthesis(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0_usize;
    let mut quote: Option<u8> = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'(') => depth += 1,
            (None, b')') => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}
