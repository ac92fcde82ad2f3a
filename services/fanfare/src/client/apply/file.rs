//! The file that is applied. Nothing is checked here that the API checks.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::api::text;

/// What is declared.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Declared {
    /// Tenants.
    #[serde(default)]
    pub(super) tenants: Vec<DeclaredTenant>,
    /// The installation's event types.
    #[serde(default)]
    pub(super) event_types: Vec<Value>,
}

/// A tenant, with what it has.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(try_from = "Map<String, Value>")]
pub(super) struct DeclaredTenant {
    pub(super) id: String,
    /// Its own members.
    pub(super) members: Value,
    pub(super) event_types: Vec<Value>,
    pub(super) endpoints: Vec<DeclaredEndpoint>,
}

/// An endpoint, known again by its name.
#[derive(Debug, PartialEq)]
pub(super) struct DeclaredEndpoint {
    pub(super) name: String,
    /// Its members, but for its state.
    pub(super) members: Value,
    pub(super) state: State,
}

/// What an endpoint is to be.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it is.
    #[default]
    #[serde(skip)]
    Any,
    /// Active.
    Active,
    /// Paused.
    Paused,
    /// Disabled.
    Disabled,
}

/// A file that declares nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It is no TOML of this form.
    #[error(transparent)]
    Malformed(#[from] toml::de::Error),
    /// Two things have one name.
    #[error("{what} {name:?} is declared twice")]
    Twice {
        /// What.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl Declared {
    /// Reads a file.
    pub(super) fn parse(toml: &str) -> Result<Self, FileError> {
        let declared: Self = toml::from_str(toml)?;
        once("event type", declared.event_types.iter().map(|entry| text(entry, "type")))?;
        once("tenant", declared.tenants.iter().map(|tenant| tenant.id.as_str()))?;
        for tenant in &declared.tenants {
            once("event type", tenant.event_types.iter().map(|entry| text(entry, "type")))?;
            once("endpoint", tenant.endpoints.iter().map(|endpoint| endpoint.name.as_str()))?;
        }
        Ok(declared)
    }
}

fn once<'a>(what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), FileError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(FileError::Twice { what, name: String::from(name) });
        }
    }
    Ok(())
}

impl TryFrom<Map<String, Value>> for DeclaredTenant {
    type Error = String;

    fn try_from(mut members: Map<String, Value>) -> Result<Self, String> {
        let id = named(&members, "id", "a tenant")?;
        let event_types = list(&mut members, "event_types")?;
        for event_type in &event_types {
            let event_type = event_type.as_object().ok_or("an event type is a table")?;
            named(event_type, "type", "an event type")?;
        }
        let endpoints = list(&mut members, "endpoints")?;
        let endpoints = endpoints.into_iter().map(endpoint).collect::<Result<_, _>>()?;
        Ok(Self { id, members: Value::Object(members), event_types, endpoints })
    }
}

fn endpoint(declared: Value) -> Result<DeclaredEndpoint, String> {
    let Value::Object(mut members) = declared else {
        return Err(String::from("an endpoint is a table"));
    };
    let name = named(&members, "name", "an endpoint")?;
    let state = match members.remove("state") {
        Some(state) => serde_json::from_value(state)
            .map_err(|_| format!("the state of endpoint {name:?} is active, paused or disabled"))?,
        None => State::Any,
    };
    Ok(DeclaredEndpoint { name, members: Value::Object(members), state })
}

fn named(members: &Map<String, Value>, member: &str, what: &str) -> Result<String, String> {
    let name = members.get(member).and_then(Value::as_str).filter(|name| !name.is_empty());
    name.map(String::from).ok_or_else(|| format!("{what} has no {member}"))
}

fn list(members: &mut Map<String, Value>, member: &str) -> Result<Vec<Value>, String> {
    match members.remove(member) {
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err(format!("{member} is a list of tables")),
        None => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_taken_apart() {
        let declared = Declared::parse(
            r#"
            [[event_types]]
            type = "a.b"
            [[tenants]]
            id = "acme"
            plan = "starter"
            [[tenants.event_types]]
            type = "a.c"
            [[tenants.endpoints]]
            name = "lobby"
            url = "https://example.com/"
            state = "paused"
            "#,
        )
        .unwrap();
        assert_eq!(declared.event_types, [json!({"type": "a.b"})]);
        let [tenant] = &declared.tenants[..] else { panic!("{declared:?}") };
        assert_eq!(tenant.members, json!({"id": "acme", "plan": "starter"}));
        assert_eq!(tenant.event_types, [json!({"type": "a.c"})]);
        let members = json!({"name": "lobby", "url": "https://example.com/"});
        let lobby = DeclaredEndpoint { name: "lobby".into(), members, state: State::Paused };
        assert_eq!(tenant.endpoints, [lobby]);
    }

    #[test]
    fn what_has_no_name_or_one_twice_is_refused() {
        for bad in [
            "[[tenants]]\nname = 'x'",
            "[[tenants]]\nid = 'a'\n[[tenants]]\nid = 'a'",
            "[[tenants]]\nid = 'a'\nendpoints = [{ url = 'x' }]",
            "[[tenants]]\nid = 'a'\nendpoints = [{ name = 'x' }, { name = 'x' }]",
            "[[tenants]]\nid = 'a'\nendpoints = [{ name = 'x', state = 'any' }]",
            "[[tenants]]\nid = 'a'\nevent_types = [{}]",
            "[[tenants]]\nid = 'a'\nevent_types = [{ type = 'x' }, { type = 'x' }]",
            "event_types = [{ type = 'x' }, { type = 'x' }]",
            "[[tenant]]\nid = 'a'",
        ] {
            assert!(Declared::parse(bad).is_err(), "{bad}");
        }
    }
}
