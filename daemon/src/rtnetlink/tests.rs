use std::fs;
use std::net::Ipv4Addr;
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::{Change, Message, Rtnetlink, acknowledged, link_header};

#[test]
fn attributes_are_padded_and_nested() {
    let mut message = Message::new(16, 0, &link_header(3, Some(true)));
    message.nest(18, |info| info.text(1, "bridge"));
    let bytes = message.finish();
    assert_eq!(bytes.len(), 48);
    assert_eq!(bytes[..8], [48, 0, 0, 0, 16, 0, 5, 0]);
    assert_eq!(bytes[16..32], [0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bytes[32..], *b"\x10\0\x12\0\x0b\0\x01\0bridge\0\0");
}

#[test]
fn only_an_acknowledgement_is_agreement() {
    let answer = |kind: u16, code: i32| {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(code.to_ne_bytes());
        bytes
    };
    acknowledged(&answer(2, 0)).unwrap();
    assert_eq!(acknowledged(&answer(2, -17)).unwrap_err().raw_os_error(), Some(17));
    for wrong in [answer(3, 0), answer(2, 5), answer(2, 0)[..19].to_vec(), Vec::new()] {
        acknowledged(&wrong).unwrap_err();
    }
}

/// The kernel itself, in a network namespace of the test's own; it needs the right to make one.
#[test]
fn a_bridge_gets_a_port_and_an_address() {
    let in_namespace = || {
        if unshare(CloneFlags::CLONE_NEWNET).is_err() {
            return;
        }
        let kernel = Rtnetlink::open().unwrap();
        kernel.change("lo", Change::Up(true)).unwrap();
        kernel.make_bridge("br0").unwrap();
        kernel.make_bridge("port0").unwrap();
        kernel.change("br0", Change::Mtu(1400)).unwrap();
        kernel.change("br0", Change::Address([2, 0, 0, 0, 0, 9])).unwrap();
        kernel.change("br0", Change::Up(true)).unwrap();
        kernel.add_address("br0", Ipv4Addr::new(10, 77, 0, 1), 24).unwrap();
        kernel.add_address("br0", Ipv4Addr::new(10, 77, 0, 1), 24).unwrap();
        let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap();
        assert!(routes.contains("br0\t00004D0A\t00000000"), "{routes}");
        // A bridge cannot be the port of another: the kernel's refusal comes through.
        assert_eq!(kernel.change("port0", Change::Bridge("br0")).unwrap_err().raw_os_error(), Some(40));
        let missing = kernel.change("nothing0", Change::Up(true)).unwrap_err();
        assert!(missing.to_string().starts_with("nothing0: "), "{missing}");
    };
    thread::spawn(in_namespace).join().unwrap();
}
