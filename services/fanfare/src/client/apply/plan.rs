//! From what is declared and what is there to what is to be done. Pure.

use anyhow::{Context as _, Result};
use fanfare_domain::retry::Policy;
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::{super::api::text, file::State};

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tenant,
    EventType,
    Endpoint,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A thing is made.
    Create {
        kind: Kind,
        name: String,
        path: String,
        body: Value,
        /// What follows, for an endpoint that is not to be active.
        state: Option<&'static str>,
    },
    /// Members of a thing are changed.
    Change { kind: Kind, name: String, path: String, body: Value },
    /// An endpoint is paused, resumed, disabled or enabled.
    Act { name: String, path: String, action: &'static str },
}

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(super) struct Steps(Vec<Step>);

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::EventType => "event type",
            Self::Endpoint => "endpoint",
        }
    }

    /// The member that names it, which is never changed.
    const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "id",
            Self::EventType => "type",
            Self::Endpoint => "name",
        }
    }

    /// Members whose change takes others along, and those others, so that they are said again.
    const fn follow(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::Tenant => (&["plan", "profile"], &["rate_limit", "endpoints_max"]),
            Self::EventType | Self::Endpoint => (&[], &[]),
        }
    }

    /// Members that are used when it is made, and cannot be compared later.
    const fn once(self) -> &'static [&'static str] {
        match self {
            Self::Tenant | Self::EventType => &[],
            Self::Endpoint => &["secret", "secret_kind", "headers"],
        }
    }
}

impl Step {
    /// Says what is done, for people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Create { kind, name, state, path: _, body: _ } => {
                let then = state.map_or_else(String::new, |action| format!(", then {action} it"));
                format!("make {} {name}{then}", kind.words())
            }
            Self::Change { kind, name, body, path: _ } => {
                let members: Vec<&str> =
                    body.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
                format!("change {} {name}: {}", kind.words(), members.join(", "))
            }
            Self::Act { name, action, path: _ } => format!("{action} endpoint {name}"),
        }
    }

    /// Shows it to programs; without the body, which may hold secrets.
    pub(super) fn json(&self) -> Value {
        let (Self::Create { path, .. } | Self::Change { path, .. } | Self::Act { path, .. }) = self;
        json!({ "path": path, "does": self.words() })
    }
}

impl Steps {
    /// Compares a thing as it is declared with what is there: the paths are that of all things of its
    /// kind, and its own.
    pub(super) fn thing(
        &mut self,
        kind: Kind,
        (all, one): (&str, &str),
        declared: &Value,
        found: Option<&Value>,
    ) -> Result<()> {
        let members = declared.as_object().context("what is declared is a table")?;
        let name = String::from(text(declared, kind.name()));
        let Some(found) = found else {
            let (path, body) = (String::from(all), declared.clone());
            self.0.push(Step::Create { kind, name, path, body, state: None });
            return Ok(());
        };
        let differs = |(member, value): &(&String, &Value)| {
            let fixed = *member == kind.name() || kind.once().contains(&member.as_str());
            !fixed && !is_so(kind, member, value, found.get(*member).unwrap_or(&Value::Null))
        };
        let changed: Map<String, Value> = members
            .iter()
            .filter(differs)
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect();
        let changed = with_followers(kind, members, changed);
        if !changed.is_empty() {
            let (path, body) = (String::from(one), Value::Object(changed));
            self.0.push(Step::Change { kind, name, path, body });
        }
        Ok(())
    }

    /// Compares the state of an endpoint with what it is to be.
    pub(super) fn state(&mut self, one: &str, name: &str, wanted: State, found: Option<&Value>) {
        let is = found.map_or("active", |found| text(found, "state"));
        let actions: &[&'static str] = match (wanted, is) {
            (State::Active, "paused") => &["resume"],
            (State::Active, "disabled") => &["enable"],
            (State::Paused, "active") => &["pause"],
            (State::Paused, "disabled") => &["enable", "pause"],
            (State::Disabled, "active" | "paused") => &["disable"],
            (State::Any | State::Active | State::Paused | State::Disabled, _) => &[],
        };
        match (found, self.0.last_mut()) {
            (None, Some(Step::Create { state, .. })) => *state = actions.first().copied(),
            (None | Some(_), _) => self.0.extend(actions.iter().map(|action| Step::Act {
                name: String::from(name),
                path: String::from(one),
                action,
            })),
        }
    }

    /// Returns what is to be done.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.0
    }
}

/// Adds what is declared and is as it should be, and would not stay so.
fn with_followers(
    kind: Kind,
    declared: &Map<String, Value>,
    mut changed: Map<String, Value>,
) -> Map<String, Value> {
    let (leaders, followers) = kind.follow();
    if leaders.iter().any(|leader| changed.contains_key(*leader)) {
        let said = followers.iter().filter_map(|name| declared.get_key_value(*name));
        changed.extend(said.map(|(name, value)| (name.clone(), value.clone())));
    }
    changed
}

/// Tells whether a member is as it is declared. The API shows some of them in another form than
/// they may be written in.
fn is_so(kind: Kind, member: &str, declared: &Value, shown: &Value) -> bool {
    match (kind, member) {
        (Kind::Endpoint, "url") => {
            let url = |value: &Value| value.as_str().and_then(|text| Url::parse(text).ok());
            declared == shown || url(declared).is_some_and(|wanted| url(shown) == Some(wanted))
        }
        (Kind::Endpoint, "retry") => {
            let policy = |value: &Value| serde_json::from_value::<Policy>(value.clone()).ok();
            policy(declared).is_some_and(|wanted| policy(shown) == Some(wanted))
        }
        (Kind::Endpoint, "authentication" | "tls") => {
            is_within(&comparable(declared), &comparable(shown))
        }
        (Kind::EventType, _) => declared == shown,
        (Kind::Tenant | Kind::Endpoint, _) => is_within(declared, shown),
    }
}

/// Leaves out what is never shown, and of certificates the line ends and what stands around them.
fn comparable(value: &Value) -> Value {
    const SECRETS: [&str; 4] = ["token", "password", "client_secret", "client_key_pem"];

    let Value::Object(members) = value else { return value.clone() };
    let shown = members.iter().filter(|(name, _)| !SECRETS.contains(&name.as_str()));
    let member = |(name, value): (&String, &Value)| {
        let pem = value.as_str().filter(|_| name.ends_with("_pem"));
        let bare = pem.map(|pem| Value::from(certificates(pem)));
        (name.clone(), bare.unwrap_or_else(|| value.clone()))
    };
    Value::Object(shown.map(member).collect())
}

/// Returns the certificates of a text in PEM, without anything around them.
fn certificates(pem: &str) -> Vec<String> {
    let begun = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let whole = begun.filter_map(|text| text.split("-----END CERTIFICATE-----").next());
    whole.map(|text| text.split_whitespace().collect()).collect()
}

/// Tells whether all that is declared is there: what is not declared has a default, or stays.
fn is_within(declared: &Value, shown: &Value) -> bool {
    match (declared, shown) {
        (Value::Object(declared), Value::Object(shown)) => declared
            .iter()
            .all(|(name, value)| shown.get(name).is_some_and(|is| is_within(value, is))),
        (declared, shown) => declared == shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(declared: &Value, found: Option<&Value>) -> Vec<String> {
        let mut steps = Steps::default();
        steps.thing(Kind::Endpoint, ("/all", "/all/ep_1"), declared, found).unwrap();
        steps.into_steps().iter().map(Step::words).collect()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let declared = json!({
            "name": "lobby",
            "url": "https://example.com",
            "rate_limit": {"requests": 5, "per": "second"},
            "retry": {"delays": {"list": ["60s"]}},
            "secret": "never compared",
        });
        let shown = json!({
            "name": "lobby",
            "url": "https://example.com/",
            "rate_limit": {"requests": 5, "per": "second", "burst": 1},
            "retry": {"delays": {"list": ["1m"]}},
            "concurrency": 4,
        });
        assert_eq!(endpoint(&declared, None), ["make endpoint lobby"]);
        assert_eq!(endpoint(&declared, Some(&shown)), Vec::<String>::new());
        let mut other = shown;
        other["rate_limit"]["requests"] = json!(6);
        other["url"] = json!("https://example.com/b");
        let expected = ["change endpoint lobby: rate_limit, url"];
        assert_eq!(endpoint(&declared, Some(&other)), expected);
    }

    #[test]
    fn what_is_not_shown_of_an_endpoint_is_not_compared() {
        let pem = |text: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        let declared = json!({
            "name": "lobby",
            "authentication": {"type": "oauth2", "client_id": "us", "client_secret": "x"},
            "tls": {
                "client_certificate_pem": format!("ours:\n{}", pem("AA\nBB")),
                "client_key_pem": "x",
            },
        });
        let mut shown = json!({
            "name": "lobby",
            "authentication": {
                "type": "oauth2", "client_id": "us", "scopes": [], "credentials_in": "header",
            },
            "tls": {"ca_pem": null, "client_certificate_pem": pem("AABB"), "authorities": []},
        });
        assert_eq!(endpoint(&declared, Some(&shown)), Vec::<String>::new());
        shown["authentication"]["client_id"] = json!("them");
        shown["tls"]["client_certificate_pem"] = json!(pem("AACC"));
        let expected = ["change endpoint lobby: authentication, tls"];
        assert_eq!(endpoint(&declared, Some(&shown)), expected);
    }

    #[test]
    fn declared_limits_outlive_another_plan_or_profile() {
        let declared = json!({"id": "acme", "plan": "enterprise", "endpoints_max": 7});
        let shown = json!({
            "id": "acme", "plan": "starter", "endpoints_max": 7, "rate_limit": {"requests": 10},
        });
        let change = |declared: &Value| {
            let mut steps = Steps::default();
            steps.thing(Kind::Tenant, ("/all", "/all/acme"), declared, Some(&shown)).unwrap();
            steps.into_steps().iter().map(Step::words).collect::<Vec<_>>()
        };
        assert_eq!(change(&declared), ["change tenant acme: endpoints_max, plan"]);
        let same = json!({"id": "acme", "plan": "starter", "endpoints_max": 7});
        assert_eq!(change(&same), Vec::<String>::new());
        let other = json!({"id": "acme", "profile": "kryptos", "rate_limit": {"requests": 10}});
        assert_eq!(change(&other), ["change tenant acme: profile, rate_limit"]);
    }

    #[test]
    fn a_schema_is_all_that_is_declared() {
        let declared = json!({"type": "a", "schema": {"type": "object"}});
        let shown = json!({"type": "a", "schema": {"type": "object", "required": ["x"]}});
        let mut steps = Steps::default();
        steps.thing(Kind::EventType, ("/all", "/all/a"), &declared, Some(&shown)).unwrap();
        let words: Vec<_> = steps.into_steps().iter().map(Step::words).collect();
        assert_eq!(words, ["change event type a: schema"]);
    }

    #[test]
    fn a_state_is_reached_by_the_actions_that_lead_to_it() {
        let states = |wanted, is: Option<&str>| {
            let found = is.map(|state| json!({"state": state}));
            let mut steps = Steps::default();
            if found.is_none() {
                let declared = json!({"name": "x"});
                steps.thing(Kind::Endpoint, ("/all", "/all/"), &declared, None).unwrap();
            }
            steps.state("/all/ep_1", "x", wanted, found.as_ref());
            steps.into_steps().iter().map(Step::words).collect::<Vec<_>>()
        };
        for (wanted, is, expected) in [
            (State::Any, Some("paused"), &[][..]),
            (State::Active, Some("active"), &[]),
            (State::Active, Some("paused"), &["resume endpoint x"]),
            (State::Paused, Some("disabled"), &["enable endpoint x", "pause endpoint x"]),
            (State::Disabled, Some("paused"), &["disable endpoint x"]),
            (State::Active, None, &["make endpoint x"]),
            (State::Paused, None, &["make endpoint x, then pause it"]),
        ] {
            assert_eq!(states(wanted, is), expected, "{wanted:?} {is:?}");
        }
    }
}
