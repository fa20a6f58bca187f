//! Datagrams of a power switch by version 3: an error, or a message that comes back the same when it is written and read
//! again, with its tag where it is said to be; and the same of what is inside once it has been decrypted.
#![no_main]

use hw::snmp::v3::{Message, Scoped};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    if let Ok((message, at)) = Message::decode(datagram) {
        assert_eq!(datagram.get(at), Some(message.tag.as_slice()));
        let written = Message::decode(&message.encode().0).map(|(message, _)| message);
        assert_eq!(written.as_ref(), Ok(&message));
    }
    if let Ok(scoped) = Scoped::decode(datagram) {
        assert_eq!(Scoped::decode(&scoped.encode()).as_ref(), Ok(&scoped));
    }
});
