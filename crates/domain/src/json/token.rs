//! The tokens of a text that is known to be JSON.
//!
//! Total on any text: what is not JSON gives meaningless tokens, and then ends.

/// Whether something is an array or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nest {
    /// `[…]`
    Array,
    /// `{…}`
    Object,
}

/// A piece of JSON. Strings are without their quotes, and with their escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `[` or `{`
    Open(Nest),
    /// `]` or `}`
    Close(Nest),
    /// `,`
    Comma,
    /// A member's name, with the colon that follows it.
    Key(&'a str),
    /// A string that is a value.
    Text(&'a str),
    /// A number.
    Number(&'a str),
    /// `true`, `false` or `null`.
    Word(&'a str),
}

/// Gives each token with the offset at which it begins.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// Begins at the start of the text.
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blank = rest.iter().take_while(|byte| is_blank(**byte)).count();
        self.at += blank;
        rest.get(blank).copied()
    }

    fn take(&mut self, length: usize) -> &'a str {
        let taken = self.text.get(self.at..self.at + length).unwrap_or_default();
        self.at += length;
        taken
    }

    /// Takes a string from its opening quote on.
    fn text(&mut self) -> Token<'a> {
        self.at += 1;
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let inner = self.take(text_length(rest));
        self.at += 1;
        if self.peek() == Some(b':') {
            self.at += 1;
            Token::Key(inner)
        } else {
            Token::Text(inner)
        }
    }

    /// Takes a number or a word.
    fn scalar(&mut self) -> &'a str {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let ends = |byte: &u8| is_blank(*byte) || matches!(byte, b',' | b']' | b'}');
        self.take(rest.iter().position(ends).unwrap_or(rest.len()))
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (usize, Token<'a>);

    fn next(&mut self) -> Option<(usize, Token<'a>)> {
        let first = self.peek()?;
        let at = self.at;
        let mut one = |token| {
            self.at += 1;
            token
        };
        let token = match first {
            b'[' => one(Token::Open(Nest::Array)),
            b'{' => one(Token::Open(Nest::Object)),
            b']' => one(Token::Close(Nest::Array)),
            b'}' => one(Token::Close(Nest::Object)),
            b',' => one(Token::Comma),
            b'"' => self.text(),
            b'-' | b'0'..=b'9' => Token::Number(self.scalar()),
            _ => Token::Word(self.scalar()),
        };
        Some((at, token))
    }
}

/// Tells whether a byte is white space in JSON.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Returns how many bytes there are before the quote that ends a string.
pub(super) fn text_length(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        match rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
            Some(found) if rest.get(found) == Some(&b'"') => return at + found,
            // An escape: whatever follows the backslash does not end the string.
            Some(found) => at += found + 2,
            None => break,
        }
    }
    bytes.len()
}
