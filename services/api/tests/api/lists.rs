//! Lists, a page at a time.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::support::World;

/// Walks through a list, and returns the sizes of its pages and the ids in it.
async fn walk(world: &World, path: &str, limit: usize) -> Result<(Vec<usize>, Vec<String>)> {
    let (mut sizes, mut ids, mut cursor) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}?limit={limit}{cursor}")).await?;
        sizes.push(page.data().len());
        ids.extend(page.ids());
        let Some(next) = page.next() else { return Ok((sizes, ids)) };
        cursor = next;
    }
}

#[tokio::test]
async fn pages_join_up_and_none_is_empty() -> Result<()> {
    let world = World::new().await?;
    world.tenant("acme", "kryptos").await?;
    let mut made = BTreeSet::new();
    for number in 0..7 {
        made.insert(world.endpoint("acme").await?);
        world.key(Some("acme"), "read").await?;
        world.tenant(&format!("t{number}"), "kryptos").await?;
    }
    let (sizes, ids) = walk(&world, "/v1/tenants/acme/endpoints", 3).await?;
    assert_eq!(sizes, [3, 3, 1]);
    assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), made);
    assert!(ids.is_sorted(), "oldest first");
    assert_eq!(walk(&world, "/v1/tenants/acme/keys", 7).await?.0, [7]);
    assert_eq!(walk(&world, "/v1/tenants", 4).await?.0, [4, 4]);
    assert_eq!(walk(&world, "/v1/keys", 250).await?.0, [1]);
    Ok(())
}

#[tokio::test]
async fn pages_that_cannot_be_are_refused() -> Result<()> {
    let world = World::new().await?;
    for (query, code) in [
        ("limit=0", "value_invalid"),
        ("limit=251", "value_invalid"),
        ("limit=x", "query_malformed"),
        ("cursor=x!", "cursor_invalid"),
        ("cursor=IQ", "cursor_invalid"),
        ("page=2", "query_malformed"),
    ] {
        assert_eq!(world.get(&format!("/v1/tenants?{query}")).await?.code(), code, "{query}");
    }
    Ok(())
}
