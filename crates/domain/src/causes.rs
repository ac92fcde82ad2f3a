//! Errors in words.

use std::error::Error;

/// Returns an error with all its causes, in one line.
///
/// Libraries like to repeat the cause in what they say themselves: a cause that was told already
/// is not told again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error and what caused it.
    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        source: Option<Box<Said>>,
    }

    fn said(words: &[&'static str]) -> Said {
        let because = |source, said: &&'static str| Some(Box::new(Said { said, source }));
        let all = words.iter().rev().fold(None, because);
        *all.expect("there are words")
    }

    #[test]
    fn a_cause_is_told_once() {
        let repeated =
            said(&["open the log", "IO error: connection refused", "connection refused"]);
        assert_eq!(chain(&repeated), "open the log: IO error: connection refused");
        assert_eq!(chain(&said(&["make b", "write a", "no space"])), "make b: write a: no space");
    }
}
