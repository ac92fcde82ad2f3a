//! What was probably meant by a word that is unknown.

/// Returns the known word that is nearest to an unknown one, if one is near enough to have been
/// meant: up to a third of its letters differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near_enough = (word.chars().count() / 3).max(1);
    let measured = known.into_iter().map(|other| (distance(word, other), other));
    measured.filter(|(distance, _)| *distance <= near_enough).min().map(|(_, other)| other)
}

/// Counts the letters to be inserted, removed or replaced to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    // One row of the table of distances between all beginnings of both.
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (removed, letter) in from.chars().enumerate() {
        let mut diagonal = removed;
        let mut left = removed + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(to.chars()) {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = removed + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_single_letters() {
        for (from, to, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("dispatchr", "dispatcher", 1),
            ("log", "gol", 2),
            ("größe", "grösse", 2),
        ] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }

    #[test]
    fn only_what_is_near_was_meant() {
        let known = ["api", "dispatcher", "fan-out", "ingest", "log", "retry-scheduler"];
        for (word, expected) in [
            ("dispatchr", Some("dispatcher")),
            ("fanout", Some("fan-out")),
            ("retry_scheduler", Some("retry-scheduler")),
            ("logs", Some("log")),
            ("nats", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
