use super::*;

fn hello() -> Hello {
    Hello {
        cards: vec![[0x52, 0x54, 0, 0x77, 0, 0x11]],
        node: "node1".to_owned(),
        serial: "CZ1234".to_owned(),
        uuid: "4c4c4544".to_owned(),
        cpu: "Some CPU".to_owned(),
        memory_mib: 1024,
    }
}

#[test]
fn what_a_machine_says_is_read_again() {
    assert_eq!(Hello::parse(&hello().bytes().unwrap()), Ok(hello()));
}

#[test]
fn what_could_spoil_a_screen_does_not_come_through() {
    let mut loud = hello();
    loud.serial = "\u{1b}[2J\u{7}é\n".to_owned();
    loud.cpu = "x".repeat(10_000);
    loud.cards = vec![[1; 6]; 5000];
    let heard = Hello::parse(&loud.bytes().unwrap()).unwrap();
    assert_eq!(heard.serial, "?[2J???");
    assert_eq!((heard.cpu.len(), heard.cards.len()), (TEXT, CARDS));
}

#[test]
fn another_version_is_told_so() {
    let mut bytes = hello().bytes().unwrap();
    bytes[0] = 9;
    assert_eq!(
        Hello::parse(&bytes),
        Err("it joins by version 9, the gateway by version 2: boot it from there".to_owned())
    );
}

#[test]
fn whatever_a_machine_says_is_understood_or_not() {
    let good = hello().bytes().unwrap();
    for length in 0..good.len() {
        assert!(Hello::parse(&good[..length]).is_err(), "{length} bytes");
    }
    let mut seed = 7_u64;
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_be_bytes()[0]
    };
    let mut understood = 0;
    for round in 0..20_000 {
        let mut bytes = good.clone();
        if round % 2 == 0 {
            let at = usize::from(draw()) % bytes.len();
            bytes[at] = draw();
        } else {
            bytes = (0..round % 200).map(|_| draw()).collect();
            bytes.insert(0, VERSION);
        }
        if let Ok(hello) = Hello::parse(&bytes) {
            understood += 1;
            let texts = [&hello.node, &hello.serial, &hello.uuid, &hello.cpu];
            assert!(
                texts.iter().all(|text| text.len() <= TEXT && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
            );
            assert!(hello.cards.len() <= CARDS);
        }
    }
    assert!(understood > 1000, "{understood}");
}

#[test]
fn a_code_has_six_digits_and_is_of_one_connection() {
    let one = code(&[1; 32], &[2; 32]);
    assert!(one.len() == 6 && one.bytes().all(|byte| byte.is_ascii_digit()), "{one}");
    assert_eq!(one, code(&[1; 32], &[2; 32]));
    assert!(one != code(&[3; 32], &[2; 32]) && one != code(&[1; 32], &[3; 32]));
}

/// What `cargo image` asks for.
#[test]
fn the_public_key_goes_with_the_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("cluster.toml"), include_str!("../../cluster/src/config/good.toml")).unwrap();
    let secrets =
        |digit: &str| format!("cluster_key = \"1{}\"\n[pdu.pdu1]\ncommunity = \"private\"\n", digit.repeat(63));
    let key = |text: &str| {
        std::fs::write(path("secrets.toml"), text).unwrap();
        public_key(&[path("cluster.toml"), path("secrets.toml")])
    };
    let one = key(&secrets("2")).unwrap();
    assert!(Identity::parse(&one).is_some());
    assert_ne!(one, key(&secrets("3")).unwrap());
    assert!(key("cluster_key = 1").unwrap_err().starts_with("secrets.toml, line 1"));
    assert!(public_key(&[path("none"), path("secrets.toml")]).is_err());
}
