//! Bad input, each with what must come of it, against the running system over real sockets.
//!
//! `README.md` beside this file lists every row; it is written by the rows themselves
//! (`FANFARE_WRITE_SECURITY=1`), and a test sees to it that it stays so.
#![expect(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod answers;
mod dialled;
mod grants;
mod headers;
mod kept;
mod names;
mod payloads;
mod quiet;
mod raw;
mod served;
mod signatures;
mod support;
mod table;
mod tenants;
mod tokens;
mod urls;
mod wire;
mod world;

use std::io::Write as _;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::{
    table::{Family, Seen},
    world::World,
};

/// Every family of rows, in the order of the README.
fn families() -> Vec<Family> {
    vec![
        urls::family(),
        dialled::family(),
        names::family(),
        answers::family(),
        grants::family(),
        kept::family(),
        signatures::family(),
        headers::family(),
        payloads::family(),
        wire::family(),
        tokens::family(),
        tenants::family(),
        served::family(),
    ]
}

#[test]
fn the_readme_lists_every_row() -> Result<()> {
    table::check_readme(&families())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_ends_as_the_table_says() -> Result<()> {
    let world = Box::pin(World::begin()).await?;
    let begun = Instant::now();
    let played = tokio::join!(
        timed("urls", Box::pin(urls::play(&world))),
        timed("dialled", Box::pin(dialled::play(&world))),
        timed("names", Box::pin(names::play(&world))),
        timed("answers", Box::pin(answers::play(&world))),
        timed("grants", Box::pin(grants::play(&world))),
        timed("kept", Box::pin(kept::play(&world))),
        timed("signatures", Box::pin(signatures::play(&world))),
        timed("headers", Box::pin(headers::play(&world))),
        timed("payloads", Box::pin(payloads::play(&world))),
        timed("wire", Box::pin(wire::play(&world))),
        timed("tokens", Box::pin(tokens::play(&world))),
        timed("tenants", Box::pin(tenants::play(&world))),
        timed("served", Box::pin(served::play(&world))),
    );
    let (urls, dialled, names, answers, grants, kept, ..) = &played;
    let first = [urls, dialled, names, answers, grants, kept];
    let (.., signatures, headers, payloads, wire, tokens, tenants, served) = &played;
    let rest = [signatures, headers, payloads, wire, tokens, tenants, served];
    let all = first.into_iter().chain(rest);
    let mut wrong = Vec::new();
    for (family, seen) in families().iter().zip(all) {
        match seen {
            Ok(seen) => wrong.extend(family.judge(seen)),
            Err(error) => wrong.push(format!("{}: {error:#}", family.title)),
        }
    }
    let rows: usize = families().iter().map(|family| family.rows.len()).sum();
    writeln!(std::io::stderr(), "security: {rows} rows in {:?}", begun.elapsed())?;
    ensure!(wrong.is_empty(), "{} rows ended otherwise:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(world.decoy_connections() == 0, "something spoke to the proxy of the environment");
    Box::pin(world.end()).await
}

async fn timed(name: &str, play: impl Future<Output = Result<Seen>>) -> Result<Seen> {
    let begun = Instant::now();
    let seen = play.await;
    writeln!(std::io::stderr(), "security: {name} took {:?}", begun.elapsed())?;
    if fanfare_service::process_env()?.contains_key("FANFARE_SHOW_SECURITY") {
        writeln!(std::io::stderr(), "{seen:#?}")?;
    }
    seen
}
