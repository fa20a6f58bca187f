//! The image builder: one manifest in, what machines boot out.
//!
//! ```text
//! image/image.toml --+
//! Debian packages ---+--> build --> target/image/{xen, vmlinuz, initramfs, gateway.cpio, pxe/, guest/}
//! rootfs/, boot/ ----+                                         holdfast.spdx.json: what all that is made of
//! our binary --------+
//! cluster.toml, secrets.toml -----> media --> the gateway's disk, with all that the nodes boot
//! ```
//!
//! An initramfs is one or more archives behind one another: what every machine has (`initramfs`), what only the gateway
//! has (`gateway.cpio`), and what only this site has: its configuration, and on the gateway the secrets; what nodes boot has the
//! gateway's public key instead.

pub mod build;
pub mod check;
pub mod debian;
pub mod elf;
pub mod kernel;
pub mod manifest;
pub mod media;
pub mod sbom;
pub mod tree;
