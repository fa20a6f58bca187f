//! Whom the gateway has approved: an identity, the card by which it is known, and since when.
//!
//! One card is one machine: who is approved for a card takes it from whoever had it before. An approval that was taken back
//! stays in the table, so that its holder is refused and no window lets it in again, until the operator forgets it.

use serde::{Deserialize, Serialize};

use crate::stream::joiner::Identity;
use crate::streams::store;

/// Machines in the table: more than a cluster has, and some that were replaced.
const MACHINES: usize = 64;

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Who it is.
    pub(crate) identity: Identity,
    /// The card by which it is known.
    pub(crate) card: [u8; 6],
    /// The node that it was then.
    pub(crate) node: String,
    /// When, in seconds since 1970 by the gateway's clock.
    pub(crate) at_s: u64,
    /// Whether that was taken back.
    pub(crate) revoked: bool,
}

/// The table, the last approval last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table(Vec<Machine>);

impl store::Table for Table {
    const PLACES: [u64; 2] = [516 << 10, 772 << 10];
    const NAME: &str = "approved machines";
}

impl Table {
    /// All of them.
    pub(crate) fn machines(&self) -> &[Machine] {
        &self.0
    }

    /// What is known of who it is.
    pub(crate) fn of(&self, identity: Identity) -> Option<&Machine> {
        self.0.iter().find(|machine| machine.identity == identity)
    }

    /// Who is approved for that card.
    pub(crate) fn with_card(&self, card: [u8; 6]) -> Option<&Machine> {
        self.0.iter().find(|machine| machine.card == card && !machine.revoked)
    }

    /// Approves a machine.
    ///
    /// # Errors
    /// There is no room, in words for the operator.
    pub(crate) fn approve(&mut self, machine: Machine) -> Result<(), String> {
        for other in self.0.iter_mut().filter(|other| other.card == machine.card) {
            other.revoked = true;
        }
        self.0.retain(|other| other.identity != machine.identity);
        if self.0.len() >= MACHINES {
            let oldest = self.0.iter().position(|other| other.revoked);
            let oldest = oldest.ok_or_else(|| format!("{MACHINES} machines are approved: take some approvals back"))?;
            self.0.remove(oldest);
        }
        self.0.push(machine);
        Ok(())
    }

    /// Takes an approval back; whether there was one.
    pub(crate) fn revoke(&mut self, identity: Identity) -> bool {
        let machine = self.0.iter_mut().find(|machine| machine.identity == identity && !machine.revoked);
        machine.map(|machine| machine.revoked = true).is_some()
    }

    /// Forgets an approval that was taken back; whether there was one.
    pub(crate) fn forget(&mut self, identity: Identity) -> bool {
        let before = self.0.len();
        self.0.retain(|machine| machine.identity != identity || !machine.revoked);
        self.0.len() < before
    }
}
