//! One of the two tenants: what it has, and what nobody else may see.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use data_encoding::HEXLOWER;
use fanfare_service::random_bytes;
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{Api, EAGER, Needles, api::text, search::forms};

/// The names of parameters in paths, with what their ids begin with.
const KINDS: [(&str, &str); 5] = [
    ("endpoint", "ep_"),
    ("event", "evt_"),
    ("delivery", "dlv_"),
    ("key", "key_"),
    ("replay", "job_"),
];
/// Ids of other kinds, which are in no path.
const OTHERS: [&str; 2] = ["lnk_", "bat_"];
/// How many symbols an id has behind that.
const SYMBOLS: usize = 26;

/// A tenant.
pub(super) struct Side {
    pub(super) tenant: String,
    /// What everything has that it says.
    pub(super) marker: String,
    /// Its keys and tokens: the first may do everything, the second is a person's to look.
    pub(super) keys: Vec<String>,
    /// The ids of those: they are not to be deleted.
    kept: BTreeSet<String>,
    /// What must be seen by nobody else.
    own: BTreeSet<String>,
    /// Ids and types, by the names of parameters.
    pools: BTreeMap<&'static str, Vec<String>>,
    pub(super) cursors: Vec<String>,
    pub(super) etags: Vec<String>,
    /// How many answers had something of its own in them.
    pub(super) hits: usize,
}

impl Side {
    /// Makes a tenant with keys of each role, and portal links.
    pub(super) async fn begin(api: &Api) -> Result<Self> {
        let marker = format!("mk{}", HEXLOWER.encode(&random_bytes::<8>()));
        let tenant = format!("t-{marker}");
        api.tenant(&tenant, EAGER).await?;
        let mut side = Self {
            tenant: tenant.clone(),
            own: BTreeSet::from([marker.clone()]),
            marker,
            keys: Vec::new(),
            kept: BTreeSet::new(),
            pools: BTreeMap::new(),
            cursors: Vec::new(),
            etags: Vec::new(),
            hits: 0,
        };
        for role in ["admin", "admin link", "read", "publish", "read link"] {
            let link = role.strip_suffix(" link");
            let (place, body, name) = match link {
                Some(role) => {
                    ("portal-links", json!({ "role": role, "user": side.marker }), "token")
                }
                None => ("keys", json!({ "role": role, "name": side.marker }), "key"),
            };
            let made = api.post(&format!("/v1/tenants/{tenant}/{place}"), &body).await?;
            side.kept.insert(text(&made, "id")?);
            side.own.insert(text(&made, "id")?);
            let key = text(&made, name)?;
            side.own.insert(key.clone());
            side.keys.push(key);
        }
        Ok(side)
    }

    /// A key that may do everything.
    pub(super) fn admin(&self) -> &str {
        self.keys.first().map_or("", String::as_str)
    }

    /// Any of its keys; mostly one that may do what it asks for.
    pub(super) fn any_key(&self, dice: &mut StdRng) -> &str {
        let last = if dice.random_bool(0.7) { 2 } else { self.keys.len() };
        self.keys.get(dice.random_range(0..last)).map_or("", String::as_str)
    }

    /// One of the ids that it has of a kind.
    pub(super) fn one(&self, kind: &str, dice: &mut StdRng) -> Option<String> {
        let pool = self.pools.get(kind)?;
        pool.get(dice.random_range(0..pool.len())).cloned()
    }

    /// How many ids it has seen of a kind.
    pub(super) fn count(&self, kind: &str) -> usize {
        self.pools.get(kind).map_or(0, Vec::len)
    }

    /// Notes an event type of its own.
    pub(super) fn note_type(&mut self, name: String) {
        self.own.insert(name.clone());
        self.add("event_type", name);
    }

    /// What nobody else may see, but for what somebody said.
    pub(super) fn needles(&self, said: impl Fn(&str) -> bool) -> Needles {
        let own = self.own.iter().filter(|text| !said(text));
        let mut own: Vec<_> = own.map(|text| (text.clone(), text.as_bytes().to_vec())).collect();
        if !said(&self.marker) {
            own.extend(forms(&self.marker, self.marker.as_bytes()));
        }
        Needles::new(own)
    }

    /// Tells whether there is anything of its own in a text.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        let marker = self.marker.as_bytes();
        text.windows(marker.len()).any(|window| window == marker)
    }

    /// Notes every id and secret in an answer; none of `common`, which is everybody's.
    pub(super) fn learn(&mut self, answer: &str, common: &BTreeSet<String>) {
        let tokens = answer.split(|symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '_');
        for token in tokens.filter(|token| !common.contains(*token)) {
            let is_id =
                |prefix: &str| token.strip_prefix(prefix).is_some_and(|rest| rest.len() == SYMBOLS);
            if let Some((kind, _)) = KINDS.into_iter().find(|(_, prefix)| is_id(prefix)) {
                self.own.insert(String::from(token));
                if !self.kept.contains(token) {
                    self.add(kind, String::from(token));
                }
            } else if OTHERS.into_iter().any(is_id)
                || (token.starts_with("fk_") && token.len() > SYMBOLS)
                // Base 64 is cut where it has symbols of its own.
                || (token.starts_with("whsec_") && token.len() > 20)
            {
                self.own.insert(String::from(token));
            }
        }
        let Ok(answer) = serde_json::from_str::<Value>(answer) else { return };
        if let Some(cursor) = answer["next_cursor"].as_str() {
            self.cursors.push(String::from(cursor));
        }
        if let Some(token) = answer["token"].as_str() {
            self.own.insert(String::from(token));
        }
    }

    fn add(&mut self, kind: &'static str, id: String) {
        let pool = self.pools.entry(kind).or_default();
        if !pool.contains(&id) {
            pool.push(id);
        }
    }
}
