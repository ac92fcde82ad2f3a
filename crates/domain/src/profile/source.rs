//! A profile's TOML: read as it is written, then checked and taken apart.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{
    AttemptRules, BatchError, CatalogueEntry, EndpointRules, EventTypeRules, FilterRules,
    HeaderRefused, HeaderTemplate, HealthRules, HistoryRule, OverrideRules, Plan, Profile,
    SecretError, SecretOrigin, SecretRules, StarMeaning, TypeRefused, WordMeaning, header,
    template::{Piece, Template, TemplateError},
};
use crate::{
    PauseMode,
    body::{BodyError, BodyTemplate, DataForm, DataRefused},
    event_type::{MalformedEventType, MalformedPattern},
    json::Limits,
    retry::{Policy, StatusSet, span},
    signing::{ED25519_SECRET_PREFIX, Encoding, SignatureRules, SigningSecrets},
};

/// Text that is not a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It is not TOML, or has other keys and values than a profile.
    #[error("not a profile")]
    Toml(#[source] Box<toml::de::Error>),
    /// The name cannot be one.
    #[error("a profile's name is 1 to 64 of the characters a-z 0-9 -, not {0:?}")]
    Name(String),
    /// The body cannot be made.
    #[error("body")]
    Body(#[from] BodyError),
    /// A header cannot be set.
    #[error("header {name:?}")]
    Header {
        /// Its name.
        name: String,
        /// Why not.
        #[source]
        cause: HeaderRefused,
    },
    /// A header's value is not a template.
    #[error("the value of header {name}")]
    HeaderValue {
        /// Its name.
        name: String,
        /// What is wrong with it.
        #[source]
        cause: TemplateError,
    },
    /// The signed content is not a template.
    #[error("signature.content")]
    Content(#[source] TemplateError),
    /// The signed content has no body, or has it twice.
    #[error("signature.content has {{body}} once")]
    BodyNotSigned,
    /// What stands before a signature would break the header.
    #[error("what stands before a signature is visible ASCII without spaces, not {0:?}")]
    SignaturePrefix(String),
    /// Lists of signatures could not be taken apart.
    #[error("with several signatures in a header, each needs a prefix")]
    SignaturesRunTogether,
    /// Secrets of the profile would be taken for Ed25519 secrets.
    #[error(
        "where there are Ed25519 signatures, a secret.prefix does not begin with {ED25519_SECRET_PREFIX}"
    )]
    SecretPrefix,
    /// No secret could be admitted, or none that the service makes.
    #[error("secret.length_min and secret.length_max")]
    SecretLengths(#[source] SecretError),
    /// Several events cannot be in one request as it says.
    #[error("batch")]
    Batch(#[from] BatchError),
    /// The time-out is out of bounds.
    #[error("attempt.timeout is {min:?} to {max:?}, not {0:?}", min = Profile::TIMEOUT_MIN, max = Profile::TIMEOUT_MAX)]
    Timeout(Duration),
    /// No answer could be a success.
    #[error("attempt.success names no status")]
    NoSuccess,
    /// A filter is no pattern.
    #[error("filters.default: {text:?}")]
    Filter {
        /// The filter.
        text: String,
        /// What a pattern is.
        #[source]
        cause: MalformedPattern,
    },
    /// An entry of the catalogue is no event type.
    #[error("event_types.catalogue: {text:?}")]
    EventType {
        /// The entry.
        text: String,
        /// What an event type is.
        #[source]
        cause: MalformedEventType,
    },
    /// An entry of the catalogue is not as the profile's event types must be.
    #[error("event_types.catalogue")]
    TypeRefused(#[from] TypeRefused),
    /// An example cannot be carried.
    #[error("the example of {event_type}")]
    Example {
        /// The entry.
        event_type: String,
        /// Why not.
        #[source]
        cause: DataRefused,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    name: String,
    #[serde(default)]
    description: String,
    endpoint: EndpointRules,
    filters: Filters,
    event_types: EventTypes,
    secret: SecretRules,
    body: Body,
    #[serde(default)]
    headers: Vec<Member>,
    #[serde(default)]
    batch: Option<BatchSource>,
    signature: Signature,
    attempt: AttemptSource,
    retry: Policy,
    #[serde(default)]
    overrides: OverrideRules,
    health: HealthRules,
    pause: Pause,
    history: History,
    #[serde(default)]
    plans: Vec<Plan>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filters {
    word: WordMeaning,
    star: StarMeaning,
    #[serde(default)]
    default: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventTypes {
    #[serde(default)]
    tokens: Option<NonZeroU32>,
    #[serde(default)]
    catalogue: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    description: String,
    example: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    form: DataForm,
    members: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchSource {
    members: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    header: String,
    content: String,
    algorithm: Algorithm,
    encoding: Encoding,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    ed25519_prefix: Option<String>,
    secrets: SigningSecrets,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Algorithm {
    HmacSha256,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttemptSource {
    #[serde(with = "span")]
    timeout: Duration,
    success: StatusSet,
    #[serde(default)]
    timeout_shown_as: Option<u16>,
    #[serde(default)]
    trace_context: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    mode: PauseSource,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PauseSource {
    Skip,
    Hold,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    after_deletion: HistoryRule,
}

impl Member {
    fn pair(&self) -> (&str, &str) {
        (&self.name, &self.value)
    }
}

/// Reads a profile.
pub(super) fn read(toml: &str) -> Result<Profile, ProfileError> {
    let source: Source =
        toml::from_str(toml).map_err(|cause| ProfileError::Toml(Box::new(cause)))?;
    let form = source.body.form;
    let element = source.batch.map(|batch| {
        let members = batch.members.iter().chain(&source.body.members);
        BodyTemplate::parse(members.map(Member::pair), form).map_err(BatchError::from)
    });
    let mut profile = Profile {
        name: name(source.name)?,
        description: source.description,
        endpoint: source.endpoint,
        attempt: attempt(source.attempt)?,
        retry: source.retry,
        overrides: source.overrides,
        health: source.health,
        pause: match source.pause.mode {
            PauseSource::Skip => PauseMode::Skip,
            PauseSource::Hold => PauseMode::Hold,
        },
        history: source.history.after_deletion,
        plans: source.plans,
        filters: filters(source.filters)?,
        body: BodyTemplate::parse(source.body.members.iter().map(Member::pair), form)?,
        headers: source.headers.iter().map(header).collect::<Result<_, _>>()?,
        signature: Arc::new(signature(source.signature, source.secret)?),
        batch: None,
        event_types: event_types(source.event_types)?,
    };
    if let Some(element) = element.transpose()? {
        profile.batch = Some(profile.batch_rules(element)?);
    }
    check(&profile)?;
    Ok(profile)
}

/// Checks what can only be told from the whole.
fn check(profile: &Profile) -> Result<(), ProfileError> {
    let mut names: Vec<&str> = profile.header_names().collect();
    names.sort_unstable();
    let twice = names.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(String::from(*one)),
        _ => None,
    });
    if let Some(name) = twice {
        let cause = HeaderRefused::Twice { name: name.clone() };
        return Err(ProfileError::Header { name, cause });
    }
    for entry in &profile.event_types.catalogue {
        profile.admit_type(&entry.event_type)?;
        profile.admit_data(entry.example.as_bytes(), &Limits::default()).map_err(|cause| {
            ProfileError::Example { event_type: String::from(entry.event_type.as_str()), cause }
        })?;
    }
    Ok(())
}

fn name(name: String) -> Result<String, ProfileError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(ProfileError::Name(name.chars().take(64).collect()))
    }
}

fn attempt(source: AttemptSource) -> Result<AttemptRules, ProfileError> {
    let AttemptSource { timeout, success, timeout_shown_as, trace_context } = source;
    if !(Profile::TIMEOUT_MIN..=Profile::TIMEOUT_MAX).contains(&timeout) {
        Err(ProfileError::Timeout(timeout))
    } else if success.is_empty() {
        Err(ProfileError::NoSuccess)
    } else {
        Ok(AttemptRules { timeout, success, timeout_shown_as, trace_context })
    }
}

fn filters(source: Filters) -> Result<FilterRules, ProfileError> {
    let pattern = |text: String| text.parse().map_err(|cause| ProfileError::Filter { text, cause });
    let default = source.default.into_iter().map(pattern).collect::<Result<_, _>>()?;
    Ok(FilterRules { word: source.word, star: source.star, default })
}

fn event_types(source: EventTypes) -> Result<EventTypeRules, ProfileError> {
    let entry = |entry: Entry| {
        let Entry { name: text, description, example } = entry;
        match text.parse() {
            Ok(event_type) => Ok(CatalogueEntry { event_type, description, example }),
            Err(cause) => Err(ProfileError::EventType { text, cause }),
        }
    };
    let catalogue = source.catalogue.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(EventTypeRules { tokens: source.tokens, catalogue })
}

fn header(member: &Member) -> Result<HeaderTemplate, ProfileError> {
    let name = header_name(&member.name)?;
    let value = Template::parse(&member.value, None)
        .map_err(|cause| ProfileError::HeaderValue { name: name.clone(), cause })?;
    for piece in value.pieces() {
        let Piece::Text(text) = piece else { continue };
        // Spaces may stand beside a placeholder: its value is never empty, but for a type's rest.
        header::check_value(name.clone(), text.trim_matches(' '))
            .map_err(|cause| ProfileError::Header { name: name.clone(), cause })?;
    }
    Ok(HeaderTemplate { name: name.into(), value })
}

fn header_name(name: &str) -> Result<String, ProfileError> {
    let refused = |cause| ProfileError::Header { name: name.chars().take(64).collect(), cause };
    let lower = header::check_name(name).map_err(refused)?;
    if header::is_reserved(&lower) && !lower.starts_with("webhook-") {
        return Err(refused(HeaderRefused::Reserved { name: lower }));
    }
    Ok(lower)
}

fn signature(source: Signature, secret: SecretRules) -> Result<SignatureRules, ProfileError> {
    let Algorithm::HmacSha256 = source.algorithm;
    let content = Template::parse(&source.content, Some("body")).map_err(ProfileError::Content)?;
    if content.holes() != 1 {
        return Err(ProfileError::BodyNotSigned);
    }
    for prefix in std::iter::once(&source.prefix).chain(&source.ed25519_prefix) {
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ProfileError::SignaturePrefix(prefix.chars().take(64).collect()));
        }
        if prefix.is_empty() && source.secrets == SigningSecrets::All {
            return Err(ProfileError::SignaturesRunTogether);
        }
    }
    if source.ed25519_prefix.is_some() && secret.prefix.starts_with(ED25519_SECRET_PREFIX) {
        return Err(ProfileError::SecretPrefix);
    }
    check_lengths(&secret).map_err(ProfileError::SecretLengths)?;
    Ok(SignatureRules {
        header: header_name(&source.header)?.into(),
        encoding: source.encoding,
        prefix: source.prefix,
        ed25519_prefix: source.ed25519_prefix,
        secrets: source.secrets,
        content: content.split_at_hole(),
        secret,
    })
}

/// Checks that a secret can be within the limits, and that one made by the service is.
fn check_lengths(secret: &SecretRules) -> Result<(), SecretError> {
    let (min, max, measure) = (secret.length_min, secret.length_max, secret.measure());
    if min == 0 {
        return Err(SecretError::TooShort { length: 0, min: 1, measure });
    }
    if max < min || max > SecretRules::LENGTH_MAX {
        let max = SecretRules::LENGTH_MAX.min(max);
        return Err(SecretError::TooLong { length: secret.length_max.max(min), max, measure });
    }
    match secret.origin {
        SecretOrigin::Supplied => Ok(()),
        SecretOrigin::Generated | SecretOrigin::Either => {
            secret.check(secret.generate(&[0; 32]).expose())
        }
    }
}
