//! Exports made, grown and deleted while they are claimed and served: Debian's lvm2 on loop devices, its nbd-server, and nodes
//! that come over encrypted streams. Where the kernel has no device mapper, files stand for the volumes' devices.

use std::fs::OpenOptions;

use cluster::status::VmStatus;
use cluster::words::Mebibytes;
use console::{Exported, VolumeRequest, Volumes};

use super::*;
use crate::stream::Opaque;
use crate::streams::volumes::Shelf;
use crate::volumes::tests_bench::{Bench, has_mapper};

/// A gateway with one blank disk, and a supervisor that tells what it is told to.
struct Lab {
    gateway: Gateway,
    bench: Bench,
    supervisor: PathBuf,
    status: Arc<Mutex<Status>>,
}

impl Lab {
    fn start() -> Self {
        let bench = Bench::new(&[128]);
        let config = Config::parse(GOOD).unwrap();
        let (state, drain) = (tempfile::tempdir().unwrap(), Duration::from_secs(60));
        let mut disks = tests_server::Server::start(&["x0"]);
        disks.keep();
        let supervisor = state.path().join("menu.sock");
        let mut storage =
            Storage::new(&config, disks.socket(), drain, Store::open(&state.path().join("state")).unwrap());
        storage.shelf = Shelf {
            group: Mutex::new((bench.group(&config.exports), None)),
            directory: bench.volumes(),
            nbd: (disks.file("conf"), disks.file("pid")),
            supervisor: supervisor.clone(),
        };
        if !has_mapper() {
            fs::create_dir(bench.volumes()).unwrap();
        }
        let (server, port) = serve(storage);
        let status = super::supervisor(&supervisor);
        Self { gateway: Gateway { config, disks, drain, state, server, port }, bench, supervisor, status }
    }

    fn ask(&self, request: &VolumeRequest) -> Result<Volumes, String> {
        let service = Service::Volume(postcard::to_allocvec(request).unwrap());
        let told: Result<Opaque, String> = self.gateway.ask(&service).unwrap().hear().unwrap();
        told.map(|volumes| postcard::from_bytes(&volumes).unwrap())
    }

    fn take(&self) {
        let disk = self.bench.disks[0].clone();
        let taken = self.ask(&VolumeRequest::Take { disk: disk.clone(), blank: true, typed: disk }).unwrap();
        assert_eq!((taken.group.unwrap().mib, taken.disks.len()), (124, 0));
    }

    /// Has a volume made, or says why it is refused.
    fn create(&self, name: &str, mib: u64) -> Result<Volumes, String> {
        self.device(name, mib);
        self.ask(&VolumeRequest::Create { typed: format!("{name} {mib}M") })
    }

    /// What the device mapper does, where there is none.
    fn device(&self, name: &str, mib: u64) {
        if !has_mapper() {
            let file =
                OpenOptions::new().write(true).create(true).truncate(false).open(self.bench.volumes().join(name));
            file.unwrap().set_len(mib << 20).unwrap();
        }
    }

    fn delete(&self, typed: &str) -> Result<Volumes, String> {
        let deleted = self.ask(&VolumeRequest::Delete { export: "web".to_owned(), typed: typed.to_owned() });
        if deleted.is_ok() && !has_mapper() {
            fs::remove_file(self.bench.volumes().join("web")).unwrap();
        }
        deleted
    }

    fn vm_is(&self, phase: &str, quorate: bool) {
        let vm = VmStatus {
            name: "x0".to_owned(),
            owner: Some("node1".to_owned()),
            phase: phase.to_owned(),
            generation: 1,
            memory: Mebibytes(128),
            wanted: true,
            priority: 50,
        };
        *self.status.lock().unwrap() = Status { quorate, vms: vec![vm], ..Status::default() };
    }

    fn claim(&self, who: &Claimant) -> Result<(), Refusal> {
        let claiming = Claiming { disks: vec!["web".to_owned()], claimant: who.clone(), from: None };
        self.gateway.ask(&Service::Claim(claiming)).map(drop).map_err(refusal)
    }

    fn connect(&self, who: &Claimant) -> Result<(Stream, Export), Refusal> {
        let wanted = Wanted { disk: "web".to_owned(), boot: who.boot.clone(), claimant: Some(who.clone()) };
        let mut stream = self.gateway.ask(&Service::Disk(wanted)).map_err(refusal)?;
        let export = stream.hear().unwrap();
        Ok((stream, export))
    }
}

fn web(volumes: &Volumes) -> Option<&Exported> {
    volumes.exports.iter().find(|export| export.name == "web")
}

#[test]
fn an_export_is_served_as_soon_as_it_is_made_and_deleted_only_when_nobody_can_need_it() {
    let lab = Lab::start();
    let empty = lab.ask(&VolumeRequest::List).unwrap();
    assert_eq!((empty.group, empty.problem, empty.disks.len()), (None, None, 1));
    let of_site: Vec<_> = empty.exports.iter().map(|export| (export.name.as_str(), export.volume)).collect();
    assert_eq!(of_site, [("x0", false), ("shared", false)]);
    assert!(empty.exports[0].problem.as_ref().unwrap().contains("/dev/disk/x0"), "it is not there");
    lab.take();
    let made = lab.create("web", 40).unwrap();
    let (made, mib) = (web(&made).unwrap().clone(), made.group.unwrap().free_mib);
    assert_eq!((made.mib, made.volume, made.problem, mib), (40, true, None, 84));

    let (first, second) = (who("node1", 1), who("node1", 2));
    lab.claim(&first).unwrap();
    lab.claim(&second).unwrap();
    let (stream, export) = lab.connect(&second).unwrap();
    assert_eq!(export.size, 40 << 20);
    let used = lab.ask(&VolumeRequest::List).unwrap();
    let used = web(&used).unwrap();
    assert_eq!(
        (used.clients.as_slice(), used.claims.as_slice()),
        (&["node1".to_owned()][..], &["VM x0 on node1".to_owned()][..])
    );
    lab.vm_is("stopped", true);
    assert_eq!(lab.delete("web"), Err("node1 is connected to it".to_owned()));
    drop(stream);
    until(|| web(&lab.ask(&VolumeRequest::List).unwrap()).unwrap().clients.is_empty().then_some(()));

    assert_eq!(lab.delete("wob"), Err("\"wob\" is not its name".to_owned()));
    for phase in ["running", "starting", "suspended", "moving to node2"] {
        lab.vm_is(phase, true);
        assert_eq!(lab.delete("web"), Err("VM x0 on node1 (claim 1.2) has it: stop that VM first".to_owned()));
    }
    lab.vm_is("stopped", false);
    assert!(lab.delete("web").unwrap_err().ends_with("the gateway is inquorate"));
    lab.vm_is("stopped", true);
    fs::rename(&lab.supervisor, lab.supervisor.with_extension("away")).unwrap();
    assert!(lab.delete("web").unwrap_err().starts_with("whether the VMs that have claimed it run is not known"));
    fs::rename(lab.supervisor.with_extension("away"), &lab.supervisor).unwrap();
    assert!(lab.connect(&second).is_ok(), "after all these refusals it is served as before");
    until(|| web(&lab.ask(&VolumeRequest::List).unwrap()).unwrap().clients.is_empty().then_some(()));

    let deleted = lab.delete("web").unwrap();
    assert_eq!((web(&deleted), deleted.group.unwrap().free_mib), (None, 124));
    assert!(matches!(lab.connect(&second), Err(Refusal::Missing(_))));
    lab.create("web", 8).unwrap();
    assert!(matches!(lab.claim(&first), Err(Refusal::Claimed(_))), "an older claim is refused for ever");
    assert_eq!(lab.connect(&second).unwrap().1.size, 8 << 20);
}

/// nbd-server that is asked to read its file again spoils an export that others follow in it, and the third one that is new.
#[test]
fn every_export_is_served_and_a_connection_goes_on_meanwhile() {
    let lab = Lab::start();
    lab.take();
    lab.create("web", 8).unwrap();
    lab.claim(&who("node1", 1)).unwrap();
    let (stream, _export) = lab.connect(&who("node1", 1)).unwrap();
    let (kernel, ours) = UnixStream::pair().unwrap();
    let mut disk = Disk { kernel, carrier: thread::spawn(move || carry(stream, ours, Counter::unseen())) };
    assert_eq!(lab.gateway.disks.starts(), 2);
    let mut made = vec!["web"];
    for name in ["mail", "a", "zoo", "backup"] {
        lab.create(name, 8).unwrap();
        made.push(name);
        for export in lab.ask(&VolumeRequest::List).unwrap().exports.iter().filter(|export| export.volume) {
            assert_eq!((export.mib, export.problem.as_deref()), (8, None), "{} after {name}", export.name);
        }
        for name in &made {
            lab.gateway.storage().negotiate(name).unwrap();
        }
        let byte = u8::try_from(made.len()).unwrap();
        disk.write(1, byte).unwrap();
        assert_eq!(disk.read(1).unwrap(), byte);
    }
    assert_eq!(lab.gateway.disks.starts(), 6, "only for what is new");
}

#[test]
fn what_has_grown_is_seen_by_who_connects_anew() {
    let lab = Lab::start();
    lab.take();
    lab.create("web", 16).unwrap();
    lab.claim(&who("node1", 1)).unwrap();
    let (_stream, before) = lab.connect(&who("node1", 1)).unwrap();
    let grow = |typed: &str| lab.ask(&VolumeRequest::Grow { export: "web".to_owned(), typed: typed.to_owned() });
    assert_eq!(grow("1G"), Err("1008 MiB are asked for, and 108 MiB are free".to_owned()));
    let grown = grow("48M").unwrap();
    lab.device("web", 48);
    assert_eq!(grown.group.unwrap().free_mib, 76);
    let (_stream, after) = lab.connect(&who("node1", 1)).unwrap();
    assert_eq!((before.size, after.size), (16 << 20, 48 << 20));
}

#[test]
fn what_is_being_deleted_is_nobodys() {
    let lab = Lab::start();
    lab.take();
    lab.create("web", 8).unwrap();
    lab.claim(&who("node1", 1)).unwrap();
    let withheld = lab.gateway.storage().withhold("web", "deleted").unwrap();
    assert!(matches!(lab.claim(&who("node1", 2)), Err(Refusal::Busy(_))));
    assert!(matches!(lab.connect(&who("node1", 1)), Err(Refusal::Busy(_))));
    drop(withheld);
    assert!(lab.connect(&who("node1", 1)).is_ok());
}

/// With a device mapper only.
#[test]
fn a_snapshot_is_read_by_whoever_claims_it_and_by_who_does_not() {
    if !has_mapper() {
        return;
    }
    let lab = Lab::start();
    lab.take();
    lab.create("web", 16).unwrap();
    let made = lab.ask(&VolumeRequest::Snapshot { export: "web".to_owned() }).unwrap();
    let snapshot = made.exports.iter().find(|export| export.name == "web-snap1").unwrap();
    assert_eq!((snapshot.mib, snapshot.origin.as_deref()), (16, Some("web")));
    for claimant in [None, Some(who("node1", 1))] {
        let wanted = Wanted { disk: "web-snap1".to_owned(), boot: boot("node1", 1), claimant };
        let mut stream = lab.gateway.ask(&Service::Disk(wanted)).unwrap();
        let export: Export = stream.hear().unwrap();
        assert_eq!((export.size, export.flags & 2), (16 << 20, 2), "its flags say that it can only be read");
    }
    assert_eq!(lab.delete("web"), Err("there is a snapshot web-snap1: delete it first".to_owned()));
}

#[test]
fn a_name_that_no_export_can_have_is_not_looked_for() {
    let lab = Lab::start();
    for name in ["..", "../state", ".", "", "a/b"] {
        let wanted = Wanted { disk: name.to_owned(), boot: boot("node1", 1), claimant: None };
        assert!(matches!(lab.gateway.ask(&Service::Disk(wanted)).map_err(refusal), Err(Refusal::Missing(_))), "{name}");
    }
}
