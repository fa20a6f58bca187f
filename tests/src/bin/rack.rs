//! `cargo rack`.
use holdfast_tests::rack::{Options, Rack};
fn main() -> anyhow::Result<()> {
    let rack = Rack::start(&Options {
        nodes: 3,
        vms: 2,
        dir: "target/rack".into(),
        print: true,
    })?;
    std::thread::sleep(std::time::Duration::from_secs(40));
    drop(rack);
    Ok(())
}
