//! Compiles the `.proto` files with a Rust compiler, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=fanfare");
    let files = [
        "common", "event", "task", "journal", "config", "inbox", "snapshot", "feed", "command",
        "job",
    ]
    .map(|name| format!("fanfare/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["."])?;
    // `bytes` fields are `bytes::Bytes`: decoding from `Bytes` slices them instead of copying.
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        // Few endpoints have one.
        .boxed(".fanfare.v1.Endpoint.security")
        .compile_fds(descriptors)?;
    Ok(())
}
