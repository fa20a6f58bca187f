//! `cargo rack`.

fn main() {}
