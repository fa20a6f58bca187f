//! Datagrams of a power switch: an error, or a message that comes back the same when it is written and read again.
#![no_main]

use hw::snmp::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Ok(message) = Message::decode(datagram) {
        assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    }
});
