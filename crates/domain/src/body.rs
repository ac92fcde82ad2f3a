//! Bodies: what a profile's webhooks say, member by member.
//!
//! The template is JSON text with holes, made when the profile is read. A body is that text with
//! the event's values and data in it; where no value is of the attempt, one body serves every
//! target and attempt of the event.

use bytes::Bytes;

use crate::{
    Event,
    json::{Json, Limits, Malformed, NumberNotCarried, Refused},
    profile::{
        Attempt,
        template::{AttemptValue, EventValue, Filled, Piece, Template, TemplateError},
    },
};

/// How the numbers, strings and keys of the data are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataForm {
    /// As they were sent.
    Exact,
    /// As ECMAScript's `JSON.stringify(JSON.parse(body))` would.
    Ecmascript,
}

/// What a profile's bodies are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTemplate {
    template: Template,
    form: DataForm,
}

/// A list of members that is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A member's value is not a template.
    #[error("member {name:?}")]
    Value {
        /// The member.
        name: String,
        /// What is wrong with it.
        #[source]
        cause: TemplateError,
    },
    /// Two members have one name.
    #[error("two members have the name {0:?}")]
    Twice(String),
    /// ECMAScript would move a member with such a name to the front.
    #[error("a member's name cannot be a number, like {0:?}, in a body of ECMAScript's form")]
    NumberAsName(String),
    /// The data stands within other text, or in two members.
    #[error("{{data}} stands alone, and in one member at most")]
    DataMisplaced,
}

/// Data that a profile cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataRefused {
    /// It is malformed, too large, too deep or ambiguous.
    #[error(transparent)]
    Json(#[from] Refused),
    /// A number in it would reach receivers as another one.
    #[error(transparent)]
    Number(#[from] NumberNotCarried),
}

impl From<Malformed> for DataRefused {
    fn from(cause: Malformed) -> Self {
        Self::Json(Refused::Malformed(cause))
    }
}

/// The body of an event's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// The same for every target and attempt.
    Shared(Bytes),
    /// Different between attempts.
    PerAttempt(Filled),
}

impl BodyTemplate {
    /// Reads the members, in their order: names, and templates of their values.
    ///
    /// A value that is one placeholder of a number is a number, `{data}` is the event's data, and
    /// anything else is a string.
    pub(crate) fn parse<'a>(
        members: impl Iterator<Item = (&'a str, &'a str)>,
        form: DataForm,
    ) -> Result<Self, BodyError> {
        let mut template = Template::default();
        let mut names: Vec<&str> = Vec::new();
        for (name, value) in members {
            if names.contains(&name) {
                return Err(BodyError::Twice(String::from(name)));
            }
            if form == DataForm::Ecmascript && crate::json::array_index(name).is_some() {
                return Err(BodyError::NumberAsName(String::from(name)));
            }
            let value = Template::parse(value, Some("data"))
                .map_err(|cause| BodyError::Value { name: String::from(name), cause })?;
            template.push_text(if names.is_empty() { "{" } else { "," });
            push_string(&mut template, name);
            template.push_text(":");
            push_value(&mut template, &value)?;
            names.push(name);
        }
        template.push_text(if names.is_empty() { "{}" } else { "}" });
        if template.holes() > 1 {
            return Err(BodyError::DataMisplaced);
        }
        Ok(Self { template, form })
    }

    /// Returns how the data is written.
    pub const fn form(&self) -> DataForm {
        self.form
    }

    /// Tells whether data can be carried, within limits.
    pub(crate) fn admit(&self, data: &[u8], limits: &Limits) -> Result<(), DataRefused> {
        let checked = crate::json::check(data, limits)?;
        match self.form {
            DataForm::Exact => Ok(()),
            DataForm::Ecmascript => Ok(checked.ecmascript(&mut String::new())?),
        }
    }

    /// Renders the body of an event.
    pub(crate) fn render(&self, event: &Event) -> Result<Body, DataRefused> {
        let room = event.data.len();
        let filled = self.template.fill(event, room, |out| self.write_data(&event.data, out))?;
        Ok(filled.into_constant().map_or_else(Body::PerAttempt, |text| Body::Shared(text.into())))
    }

    /// Renders the body of one attempt at an event.
    pub(crate) fn render_text(
        &self,
        event: &Event,
        attempt: &Attempt,
    ) -> Result<String, DataRefused> {
        let room = event.data.len();
        let filled = self.template.fill(event, room, |out| self.write_data(&event.data, out))?;
        Ok(filled.into_constant().unwrap_or_else(|filled| filled.text_for(attempt)))
    }

    /// Tells whether a value in it is the id of the event or of the delivery.
    pub(crate) fn names_event(&self) -> bool {
        let is_id = |piece: &Piece| match piece {
            Piece::Event(EventValue::Id | EventValue::Uuid)
            | Piece::Attempt(AttemptValue::Delivery) => true,
            Piece::Text(_) | Piece::Event(_) | Piece::Attempt(_) | Piece::Hole => false,
        };
        self.template.pieces().iter().any(is_id)
    }

    fn write_data(&self, data: &[u8], out: &mut String) -> Result<(), DataRefused> {
        let json = Json::parse(data)?;
        match self.form {
            DataForm::Exact => json.compact(out),
            DataForm::Ecmascript => json.check(Limits::NONE.depth_max)?.ecmascript(out)?,
        }
        Ok(())
    }
}

impl Body {
    /// Returns the bytes for an attempt.
    pub(crate) fn bytes_for(&self, attempt: &Attempt) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes.clone(),
            Self::PerAttempt(filled) => filled.text_for(attempt).into(),
        }
    }
}

fn push_value(template: &mut Template, value: &Template) -> Result<(), BodyError> {
    match value.pieces() {
        [alone] if *alone == Piece::Hole || alone.is_number() => template.push(alone.clone()),
        pieces if pieces.contains(&Piece::Hole) => return Err(BodyError::DataMisplaced),
        pieces => {
            template.push_text("\"");
            for piece in pieces {
                match piece {
                    Piece::Text(text) => push_escaped(template, text),
                    Piece::Event(_) | Piece::Attempt(_) | Piece::Hole => {
                        template.push(piece.clone());
                    }
                }
            }
            template.push_text("\"");
        }
    }
    Ok(())
}

fn push_string(template: &mut Template, text: &str) {
    template.push_text("\"");
    push_escaped(template, text);
    template.push_text("\"");
}

fn push_escaped(template: &mut Template, text: &str) {
    let mut escaped = String::new();
    crate::json::escape(text, &mut escaped);
    template.push_text(&escaped);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(members: &[(&str, &str)], form: DataForm) -> Result<BodyTemplate, BodyError> {
        BodyTemplate::parse(members.iter().copied(), form)
    }

    fn text(members: &[(&str, &str)], data: &str) -> String {
        let event = crate::profile::tests::event("ramp.update", data);
        let body = parse(members, DataForm::Exact).unwrap().render(&event).unwrap();
        let attempt = Attempt {
            delivery: crate::DeliveryId::from_bytes([0; 16]),
            number: 3,
            at: event.occurred_at,
        };
        String::from_utf8(body.bytes_for(&attempt).to_vec()).unwrap()
    }

    #[test]
    fn members_keep_their_order_and_kind() {
        let members = [
            ("z", "{attempt_index}"),
            ("a", "no. {attempt} of \"{event_type}\""),
            ("d\n", "{data}"),
            ("empty", ""),
        ];
        assert_eq!(
            text(&members, " [ 1.50 ,\"a b\" ] "),
            r#"{"z":2,"a":"no. 3 of \"ramp.update\"","d\n":[1.50,"a b"],"empty":""}"#
        );
        assert_eq!(text(&[], "1"), "{}");
    }

    #[test]
    fn a_body_without_values_of_the_attempt_is_shared() {
        let event = crate::profile::tests::event("ramp.update", "{}");
        let shared = parse(&[("t", "{event_type}"), ("d", "{data}")], DataForm::Exact).unwrap();
        assert!(matches!(shared.render(&event), Ok(Body::Shared(_))));
        let own = parse(&[("n", "{attempt}")], DataForm::Exact).unwrap();
        assert!(matches!(own.render(&event), Ok(Body::PerAttempt(_))));
    }

    #[test]
    fn what_is_no_body_is_refused() {
        use DataForm::{Ecmascript, Exact};
        assert_eq!(
            parse(&[("a", "1"), ("a", "2")], Exact),
            Err(BodyError::Twice(String::from("a")))
        );
        assert_eq!(parse(&[("a", "{data}."),], Exact), Err(BodyError::DataMisplaced));
        assert_eq!(
            parse(&[("a", "{data}"), ("b", "{data}")], Exact),
            Err(BodyError::DataMisplaced)
        );
        assert!(matches!(parse(&[("7", "x")], Ecmascript), Err(BodyError::NumberAsName(_))));
        assert!(parse(&[("7", "x")], Exact).is_ok());
        for bad in ["{", "}", "{event_id", "event_id}", "{{event_id}}", "{secret}", "{body}", "{}"]
        {
            assert!(matches!(parse(&[("a", bad)], Exact), Err(BodyError::Value { .. })), "{bad}");
        }
    }

    #[test]
    fn data_that_is_not_json_makes_no_body() {
        let template = parse(&[("d", "{data}")], DataForm::Exact).unwrap();
        for bad in ["", "{", "1 2", "},\"x\":{", "\u{feff}1"] {
            let event = crate::profile::tests::event("ramp.update", bad);
            assert!(template.render(&event).is_err(), "{bad}");
        }
    }
}
