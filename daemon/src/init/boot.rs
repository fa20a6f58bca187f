//! The boot: a list of named phases, in order.

use std::fs;
use std::path::Path;

use rustix::rand::GetRandomFlags;
use rustix::system::RebootCommand;

use super::services::{OnEnd, Services, Spec};
use super::site::{INCARNATION, Site};
use super::{HOLDFAST, disks, failed, filter, gateway, kernel, medium, modules, mounts, report, xen};
use crate::streams::STATE;
use crate::{firewall, join, netsetup, roster};

/// The supervisor's name among the services.
pub(super) const SUPERVISOR: &str = "supervisor";
/// The terminals that get a menu, where they exist: Xen's console and the screen.
const TERMINALS: [&str; 2] = ["/dev/hvc0", "/dev/tty1"];

/// What the phases build up.
#[derive(Debug, Default)]
pub(super) struct Boot {
    /// What runs.
    pub(super) services: Services,
    /// Who this machine is, where it is known.
    site: Option<Site>,
}

/// A phase: its name on the console, and what is done.
type Phase = (&'static str, fn(&mut Boot) -> Result<(), String>);

const PHASES: [Phase; 24] = [
    ("file systems", |_| mounts::first()),
    // Before any card is found.
    ("kernel", |_| kernel::restrict()),
    ("host", |_| host()),
    ("incarnation", |_| incarnation(Path::new(INCARNATION))),
    ("modules", |_| modules::load()),
    ("file systems of modules", |_| mounts::of_modules()),
    ("disks", |_| disks::link()),
    ("image", |_| medium::say_which()),
    ("site", |boot| {
        boot.site = Site::find_or_join()?;
        Ok(())
    }),
    ("state", Boot::find_state),
    ("network", Boot::set_up_network),
    // Nothing listens yet; and every card that has an address has its rules.
    ("packet filter", Boot::filter_packets),
    ("kernel closed", |_| kernel::close()),
    ("root closed", |_| mounts::close_root()),
    ("xenstored", |boot| xen::start_xenstored(&mut boot.services)),
    ("domain 0", |_| xen::init_dom0()),
    ("domain 0's share", |_| xen::prefer_dom0()),
    ("shared file system", Boot::make_shared),
    ("volume group", Boot::find_volumes),
    ("exports", Boot::serve_disks),
    ("PXE", Boot::serve_boot),
    ("streams", |boot| {
        boot.start_streams();
        Ok(())
    }),
    ("supervisor", |boot| {
        xen::start_xenconsoled(&mut boot.services);
        boot.start_supervisor();
        Ok(())
    }),
    ("menus", Boot::start_menus),
];

impl Boot {
    /// Goes through the phases; one that fails does not stop those behind it.
    pub(super) fn run(&mut self) {
        for (name, phase) in PHASES {
            match phase(self) {
                Ok(()) => report::progress(name),
                Err(error) => report::problem(&format!("{name}: {error}")),
            }
        }
    }

    fn set_up_network(&mut self) -> Result<(), String> {
        netsetup::set_up_host().map_err(failed("host"))?;
        let Some(site) = &self.site else {
            return Ok(());
        };
        let own = site.own();
        rustix::system::sethostname(own.name.as_bytes()).map_err(|error| format!("host name: {error}"))?;
        netsetup::set_up(&site.config, &own.nics)
    }

    fn filter_packets(&mut self) -> Result<(), String> {
        let rules = self.rules();
        filter::load(&mut self.services, &rules)
    }

    fn rules(&self) -> String {
        let rules = |site: &Site| firewall::ruleset(&site.config, site.slot, netsetup::interface);
        match (&self.site, Site::configuration()) {
            (Some(site), _) => rules(site),
            (None, Ok(config)) if join::ask::is_wanted() => firewall::of_a_stranger(&config),
            (None, _) => firewall::closed(),
        }
    }

    /// The gateway's tables, and with them the newest `cluster.toml`.
    fn find_state(&mut self) -> Result<(), String> {
        let Some(site) = self.site.as_ref().filter(|site| site.is_gateway()) else { return Ok(()) };
        gateway::find_state()?;
        let newer = roster::newer(Path::new(STATE), &site.config);
        if let Some(text) = newer.map_err(|error| format!("the newest cluster.toml: {error}"))? {
            roster::hold(&text)?;
            let site = Site::find()?;
            report::progress(&format!("edition {} of cluster.toml, which the cluster has agreed", site.config.edition));
            self.site = Some(site);
        }
        Ok(())
    }

    /// There is another `cluster.toml`: whoever was told of the one before is told of it.
    pub(super) fn configure(&mut self) {
        let site = match Site::find() {
            Ok(site) => site,
            // A node that was removed keeps what it has: the cluster does not talk with it.
            Err(error) => return report::failure(&format!("site: {error}")),
        };
        let slot = site.slot;
        let before = self.site.replace(site);
        let rules = self.rules();
        let told = match before {
            Some(before) if before.slot == slot => filter::replace(&rules).and(self.tell_dnsmasq()),
            before => {
                // A machine that has become a node, or another one.
                let old = before.as_ref().map_or(Ok(()), |old| netsetup::take_addresses(&old.config, &old.own().nics));
                let told = old.and(self.set_up_network()).and(filter::replace(&rules));
                if before.is_none() {
                    self.start_streams();
                }
                told
            }
        };
        match told {
            Ok(()) => report::progress("another edition of cluster.toml"),
            Err(error) => report::problem(&format!("another edition of cluster.toml: {error}")),
        }
    }

    fn tell_dnsmasq(&self) -> Result<(), String> {
        match &self.site {
            Some(site) if site.is_gateway() && site.config.pxe => {
                gateway::tell_dnsmasq(&self.services, &site.config, site.own())
            }
            _ => Ok(()),
        }
    }

    fn make_shared(&mut self) -> Result<(), String> {
        match &self.site {
            Some(site) if site.is_gateway() => gateway::volume::make(&site.config),
            _ => Ok(()),
        }
    }

    fn find_volumes(&mut self) -> Result<(), String> {
        match &self.site {
            Some(site) if site.is_gateway() => gateway::find_volumes(&site.config),
            _ => Ok(()),
        }
    }

    fn serve_disks(&mut self) -> Result<(), String> {
        match &self.site {
            Some(site) if site.is_gateway() => gateway::start_nbd_server(&mut self.services, &site.config.exports),
            _ => Ok(()),
        }
    }

    fn serve_boot(&mut self) -> Result<(), String> {
        match &self.site {
            Some(site) if site.is_gateway() && site.config.pxe => {
                gateway::start_dnsmasq(&mut self.services, &site.config, site.own())
            }
            _ => Ok(()),
        }
    }

    /// What answers other members: storage and migration. It goes on while the supervisor starts again.
    fn start_streams(&mut self) {
        if self.site.is_some() {
            self.services.start(Spec {
                name: "streams".to_owned(),
                program: HOLDFAST,
                arguments: vec!["streams".to_owned()],
                terminal: None,
                oom_score_adj: -1000,
                on_end: OnEnd::Restart,
                forks: None,
                socket: None,
                confined: None,
            });
        }
    }

    fn start_supervisor(&mut self) {
        self.services.start(Spec {
            name: SUPERVISOR.to_owned(),
            program: HOLDFAST,
            arguments: vec!["supervise".to_owned()],
            terminal: None,
            oom_score_adj: -1000,
            on_end: OnEnd::Restart,
            forks: None,
            socket: None,
            confined: None,
        });
    }

    fn start_menus(&mut self) -> Result<(), String> {
        for terminal in TERMINALS.into_iter().filter(|terminal| Path::new(terminal).exists()) {
            self.services.start(Spec {
                name: format!("menu on {terminal}"),
                program: HOLDFAST,
                arguments: vec!["menu".to_owned()],
                terminal: Some(terminal.to_owned()),
                oom_score_adj: 0,
                on_end: OnEnd::Restart,
                forks: None,
                socket: None,
                confined: None,
            });
        }
        Ok(())
    }
}

/// A name for the machine until its own is known, and no reboot by Ctrl-Alt-Del: VMs run here.
fn host() -> Result<(), String> {
    rustix::system::reboot(RebootCommand::CadOff).map_err(|error| format!("Ctrl-Alt-Del: {error}"))?;
    rustix::system::sethostname(b"holdfast").map_err(|error| format!("host name: {error}"))
}

/// Draws this boot's number, once.
fn incarnation(path: &Path) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|error| format!("getrandom: {error}"))?;
    // Zero is no incarnation: it stands for an empty slot.
    let number = u64::from_le_bytes(bytes).max(1);
    fs::write(path, format!("{number:016x}\n")).map_err(failed(INCARNATION))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::incarnation;

    #[test]
    fn an_incarnation_is_drawn_once_a_boot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("incarnation");
        incarnation(&path).unwrap();
        let drawn = fs::read_to_string(&path).unwrap();
        assert_eq!(drawn.len(), 17);
        assert_ne!(u64::from_str_radix(drawn.trim(), 16).unwrap(), 0);
        incarnation(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), drawn);
        let other = directory.path().join("other");
        incarnation(&other).unwrap();
        assert_ne!(fs::read_to_string(&other).unwrap(), drawn);
    }
}
