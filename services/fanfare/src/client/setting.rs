//! Values on the command line that can be taken away, or have a part that can be given alone.

use std::str::FromStr;

use serde_json::Value;

/// A value that is set, or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting<T> {
    /// It is set.
    To(T),
    /// It is taken away.
    None,
}

/// Reads a value, or `none`.
pub(crate) fn setting<T: FromStr<Err = String>>(text: &str) -> Result<Setting<T>, String> {
    if text.trim() == "none" { Ok(Setting::None) } else { text.parse().map(Setting::To) }
}

impl<T> Setting<T> {
    /// Returns the value as the API takes it.
    pub(crate) fn json(self, value: impl FnOnce(T) -> Value) -> Value {
        match self {
            Self::To(it) => value(it),
            Self::None => Value::Null,
        }
    }

    /// Returns what `map` makes of the value.
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Setting<U> {
        match self {
            Self::To(it) => Setting::To(map(it)),
            Self::None => Setting::None,
        }
    }
}

/// What was given of a setting that the API takes as a whole, and of which one part has an option
/// of its own. What was not given stays as it is.
pub(crate) struct Parted {
    /// The setting, for people.
    pub(crate) whole_name: &'static str,
    /// The option of the part.
    pub(crate) part_option: &'static str,
    /// The part, as the API names it.
    pub(crate) part_name: &'static str,
    /// The setting without the part.
    pub(crate) whole: Option<Setting<Value>>,
    /// The part.
    pub(crate) part: Option<Value>,
}

/// A part was given that nothing has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misfit {
    /// Only the part was given, and the whole is not set.
    #[error("there is no {whole} that {option} could change; give both")]
    Alone {
        /// The whole, for people.
        whole: &'static str,
        /// The option of the part.
        option: &'static str,
    },
    /// The part was given, and that the whole is to be taken away.
    #[error("{option} cannot go with a {whole} of none")]
    Removed {
        /// The whole, for people.
        whole: &'static str,
        /// The option of the part.
        option: &'static str,
    },
}

impl Parted {
    /// Tells whether what was given is to be completed by what is set.
    pub(crate) const fn is_incomplete(&self) -> bool {
        matches!((&self.whole, &self.part), (Some(Setting::To(_)), None) | (None, Some(_)))
    }

    /// Returns the whole setting as it is to become, if anything was given. A part that is neither
    /// given nor set is left to the API.
    pub(crate) fn onto(self, current: Option<&Value>) -> Result<Option<Value>, Misfit> {
        let Self { whole_name: whole, part_option: option, part_name, .. } = self;
        let current = current.filter(|value| value.is_object());
        let mut next = match (self.whole, &self.part) {
            (None, None) => return Ok(None),
            (Some(Setting::None), None) => return Ok(Some(Value::Null)),
            (Some(Setting::None), Some(_)) => return Err(Misfit::Removed { whole, option }),
            (Some(Setting::To(value)), _) => value,
            (None, Some(_)) => current.ok_or(Misfit::Alone { whole, option })?.clone(),
        };
        let part = self.part.or_else(|| current?.get(part_name).cloned());
        if let (Some(part), Some(members)) = (part, next.as_object_mut()) {
            members.insert(String::from(part_name), part);
        }
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parted(whole: Option<Setting<u32>>, part: Option<u32>) -> Parted {
        Parted {
            whole_name: "size",
            part_option: "--wait",
            part_name: "wait",
            whole: whole.map(|whole| whole.map(|number| json!({ "size": number }))),
            part: part.map(|number| json!(number)),
        }
    }

    #[test]
    fn what_is_not_given_stays() {
        let set = json!({ "size": 1, "wait": 2 });
        for (whole, part, onto_set, onto_none) in [
            (None, None, None, Ok(None)),
            (
                Some(Setting::To(7)),
                None,
                Some(json!({ "size": 7, "wait": 2 })),
                Ok(Some(json!({ "size": 7 }))),
            ),
            (
                None,
                Some(8),
                Some(json!({ "size": 1, "wait": 8 })),
                Err(Misfit::Alone { whole: "size", option: "--wait" }),
            ),
            (
                Some(Setting::To(7)),
                Some(8),
                Some(json!({ "size": 7, "wait": 8 })),
                Ok(Some(json!({ "size": 7, "wait": 8 }))),
            ),
            (Some(Setting::None), None, Some(Value::Null), Ok(Some(Value::Null))),
        ] {
            assert_eq!(parted(whole, part).onto(Some(&set)), Ok(onto_set));
            assert_eq!(parted(whole, part).onto(Some(&Value::Null)), onto_none);
            assert_eq!(parted(whole, part).onto(None), onto_none);
        }
    }

    #[test]
    fn what_is_set_matters_only_if_something_is_missing() {
        assert!(parted(Some(Setting::To(1)), None).is_incomplete());
        assert!(parted(None, Some(1)).is_incomplete());
        for (whole, part) in [
            (None, None),
            (Some(Setting::To(1)), Some(1)),
            (Some(Setting::None), None),
            (Some(Setting::None), Some(1)),
        ] {
            assert!(!parted(whole, part).is_incomplete());
        }
    }

    #[test]
    fn nothing_has_no_parts() {
        let removed = parted(Some(Setting::None), Some(1)).onto(None).unwrap_err();
        assert_eq!(removed.to_string(), "--wait cannot go with a size of none");
        let alone = parted(None, Some(1)).onto(None).unwrap_err();
        assert_eq!(alone.to_string(), "there is no size that --wait could change; give both");
    }
}
