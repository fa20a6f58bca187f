//! The supervisor of a Holdfast node: one static binary, several applets.

fn main() {}
