//! Taking an input apart.

/// What stands on the line between two parts of an input.
const BETWEEN: &str = "---";

/// Returns the input as text, if it is.
pub(crate) fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// Splits a text at its first line `---`; without one, the second part is empty.
pub(crate) fn halves(text: &str) -> (&str, &str) {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_end() == BETWEEN {
            let (first, rest) = text.split_at(at);
            return (first.trim_end_matches('\n'), rest.get(line.len()..).unwrap_or_default());
        }
        at += line.len();
    }
    (text, "")
}

/// Takes some bytes off the beginning; those that are missing are zero.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    let (head, rest) = input.split_at(N.min(input.len()));
    for (to, from) in taken.iter_mut().zip(head) {
        *to = *from;
    }
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_taken_apart() {
        assert_eq!(halves("a\nb\n---\nc\n---\n"), ("a\nb", "c\n---\n"));
        assert_eq!(halves("a\n----"), ("a\n----", ""));
        let mut input = &[1, 2, 3][..];
        assert_eq!((take(&mut input), take(&mut input)), ([1, 2], [3, 0]));
        assert!(input.is_empty());
    }
}
