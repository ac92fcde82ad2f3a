//! The receivers of the tour, and their endpoints.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use fanfare_domain::{EndpointId, Profiles, TenantId, profile::Profile, seal::Clear};
use futures_util::future::join_all;
use hyper::StatusCode;
use tokio::time::timeout;

use crate::{
    client::{
        api::{Api, text},
        endpoint::Draft,
        listen::Inspector,
        receiver::{Arrival, Plan, Receiver},
        tenant,
    },
    output::{Output, Tone},
};

/// How long a receiver is waited for that has something to hand over.
const HAND_OVER: Duration = Duration::from_millis(200);

/// Each receiver's name, how it behaves, and that in words.
const PARTS: [(&str, u32, StatusCode, &str); 3] = [
    ("good", 0, StatusCode::OK, "answers 200"),
    ("shaky", 2, StatusCode::OK, "answers 500 twice, then 200"),
    ("broken", 0, StatusCode::INTERNAL_SERVER_ERROR, "always answers 500"),
];

/// The receivers of the tour.
pub(super) struct Cast {
    members: Vec<Member>,
    /// Whose endpoints they are.
    pub(super) tenant: TenantId,
}

/// A receiver and its endpoint.
pub(super) struct Member {
    /// What it is called.
    pub(super) name: &'static str,
    part: &'static str,
    receiver: Receiver,
    /// The endpoint.
    pub(super) endpoint: EndpointId,
    /// What the endpoint's requests are signed with.
    pub(super) secret: Clear,
}

impl Cast {
    /// Starts the receivers, and makes the tenant and an endpoint for each of them.
    pub(super) async fn hire(api: &Api, tenant: &TenantId) -> Result<Self> {
        tenant::create(api, tenant, "The tour", Profile::DEFAULT).await?;
        let mut members = Vec::new();
        for (name, fail, status, part) in PARTS {
            let profile = Profiles::built_in().get(Profile::DEFAULT).cloned();
            let plan = Plan { fail, status, ..Plan::default() };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let receiver = Receiver::bind(address, plan, profile).await?;
            let draft = Draft {
                url: format!("http://{}/{name}", receiver.address()),
                types: vec![String::from("invoice.*")],
                name: Some(String::from(name)),
                retry_delays: Some(vec![Duration::from_secs(1), Duration::from_secs(2)]),
                ..Draft::default()
            };
            let made = draft.create(api, tenant).await?;
            let endpoint = text(&made, "id").parse().context("read the endpoint's id")?;
            let secret = Clear::new(String::from(text(&made, "secret")));
            members.push(Member { name, part, receiver, endpoint, secret });
        }
        Ok(Self { members, tenant: tenant.clone() })
    }

    /// Says who they are.
    pub(super) fn introduce(&self, output: Output) {
        for member in &self.members {
            let name = output.tone(Tone::Strong, &format!("{:<7}", member.name));
            output.say(&format!("     {name} {}", member.part));
        }
        output.say(
            "     A failed attempt is tried again after 1 s, then 2 s, and up to a tenth more.",
        );
    }

    /// Returns their names by their endpoints.
    pub(super) fn names(&self) -> BTreeMap<EndpointId, &'static str> {
        self.members.iter().map(|member| (member.endpoint, member.name)).collect()
    }

    /// Returns the member of that name.
    pub(super) fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Lets them receive more, which nobody looks at.
    pub(super) async fn carry_on(&mut self) {
        let receive = async |member: &mut Member| while member.receiver.next().await.is_some() {};
        join_all(self.members.iter_mut().map(receive)).await;
    }

    /// Takes what each has received.
    pub(super) async fn arrivals(&mut self) -> Vec<(&'static str, Arrival)> {
        let mut arrivals = Vec::new();
        for member in &mut self.members {
            while let Ok(Some(arrival)) = timeout(HAND_OVER, member.receiver.next()).await {
                arrivals.push((member.name, arrival));
            }
        }
        arrivals
    }
}

impl Member {
    /// Knows what its requests should look like.
    pub(super) fn inspector(&self) -> Inspector {
        let profile = Profiles::built_in().get(Profile::DEFAULT).cloned();
        Inspector::new(profile, Some(self.secret.clone()))
    }
}
