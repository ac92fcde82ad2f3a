//! Media types: which form a message has.

use super::rejection::{Reason, Rejection};

/// What a media type says of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// JSON text in UTF-8; also what counts where nothing is said.
    Json,
    /// A `CloudEvent` in the JSON event format.
    CloudEvent,
    /// A `fanfare.v1.InboxEvent`.
    Protobuf,
}

/// Reads a media type, with parameters or without. Empty text is JSON.
pub(super) fn media(text: &str) -> Result<Media, Rejection> {
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let media = match essence.as_str() {
        "" | "application/json" | "text/json" => Media::Json,
        "application/cloudevents" | "application/cloudevents+json" => Media::CloudEvent,
        "application/protobuf" | "application/x-protobuf" => Media::Protobuf,
        other if other.starts_with("application/cloudevents") => return Err(unsupported(text)),
        other if other.ends_with("+json") && other.contains('/') => Media::Json,
        _ => return Err(unsupported(text)),
    };
    if parts.all(is_harmless) { Ok(media) } else { Err(unsupported(text)) }
}

/// Reads the media type of data, which is always JSON.
pub(super) fn json_data(text: &str) -> Result<(), Rejection> {
    match media(text)? {
        Media::Json => Ok(()),
        Media::CloudEvent | Media::Protobuf => Err(unsupported(text)),
    }
}

fn unsupported(text: &str) -> Rejection {
    Reason::UnsupportedContentType.because(format_args!("{text:?} is not JSON in UTF-8"))
}

/// Whether a parameter leaves the payload UTF-8.
fn is_harmless(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return true };
    let value = value.trim().trim_matches('"').to_ascii_lowercase();
    !name.trim().eq_ignore_ascii_case("charset")
        || matches!(value.as_str(), "utf-8" | "utf8" | "us-ascii")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_compared_without_case_and_parameters() {
        for (text, expected) in [
            ("", Some(Media::Json)),
            ("application/json", Some(Media::Json)),
            ("Application/JSON; charset=UTF-8", Some(Media::Json)),
            ("application/json;charset=\"utf-8\"; profile=x", Some(Media::Json)),
            ("application/vnd.acme.v1+json", Some(Media::Json)),
            ("application/cloudevents+json; charset=utf-8", Some(Media::CloudEvent)),
            ("application/cloudevents", Some(Media::CloudEvent)),
            ("application/x-protobuf", Some(Media::Protobuf)),
            ("application/json; charset=latin1", None),
            ("application/cloudevents-batch+json", None),
            ("application/cloudevents+avro", None),
            ("text/plain", None),
            ("+json", None),
        ] {
            assert_eq!(media(text).ok(), expected, "{text}");
        }
    }
}
