//! What a UPS is read as, whichever way it is read.

use core::fmt;
use std::collections::BTreeSet;

/// A word of a UPS's state, by the names that NUT gave them (RFC 9271, section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// OL: it has mains.
    OnLine,
    /// OB: it has none, and feeds from its battery.
    OnBattery,
    /// LB: the battery is nearly empty.
    LowBattery,
    /// HB: the battery's voltage is too high.
    HighBattery,
    /// RB: the battery must be replaced.
    ReplaceBattery,
    /// CHRG: the battery is being charged.
    Charging,
    /// DISCHRG: the battery is being discharged.
    Discharging,
    /// BYPASS: mains goes past it; nothing is protected.
    Bypass,
    /// CAL: it measures its battery's runtime.
    Calibrating,
    /// OFF: it feeds nothing.
    Off,
    /// OVER: it feeds more than it should.
    Overloaded,
    /// TRIM: it lowers the voltage of mains.
    Trimming,
    /// BOOST: it raises the voltage of mains.
    Boosting,
    /// FSD: whoever is in charge of it has ordered all to shut down.
    ForcedShutdown,
    /// ALARM: it needs attention.
    Alarm,
    /// WAIT: nothing is known of it yet.
    Waiting,
}

impl Flag {
    const WORDS: [(&'static str, Self); 16] = [
        ("OL", Self::OnLine),
        ("OB", Self::OnBattery),
        ("LB", Self::LowBattery),
        ("HB", Self::HighBattery),
        ("RB", Self::ReplaceBattery),
        ("CHRG", Self::Charging),
        ("DISCHRG", Self::Discharging),
        ("BYPASS", Self::Bypass),
        ("CAL", Self::Calibrating),
        ("OFF", Self::Off),
        ("OVER", Self::Overloaded),
        ("TRIM", Self::Trimming),
        ("BOOST", Self::Boosting),
        ("FSD", Self::ForcedShutdown),
        ("ALARM", Self::Alarm),
        ("WAIT", Self::Waiting),
    ];

    /// From NUT's word. Words that are not known are to be left out: drivers invent new ones.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, flag)| flag)
    }

    /// NUT's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.into_iter().find(|(_, flag)| *flag == self).map_or("", |(word, _)| word)
    }
}

/// One reading of a UPS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpsReading {
    /// Its state. A set: the words stand beside each other.
    pub flags: BTreeSet<Flag>,
    /// The battery's charge in percent, if it says so.
    pub charge_percent: Option<u8>,
    /// For how many seconds the battery will last at this load, if it says so.
    pub runtime_s: Option<u32>,
}

impl UpsReading {
    /// Is this word part of its state?
    #[must_use]
    pub fn is(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Must all that it feeds shut down now? It feeds from a battery that is nearly empty, or the order is given.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.is(Flag::ForcedShutdown) || (self.is(Flag::OnBattery) && self.is(Flag::LowBattery))
    }
}

impl fmt::Display for UpsReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.flags.iter().map(|flag| flag.word()).collect();
        f.write_str(if words.is_empty() { "state unknown" } else { "" })?;
        f.write_str(&words.join(" "))?;
        if let Some(charge) = self.charge_percent {
            write!(f, ", charge {charge} %")?;
        }
        if let Some(runtime) = self.runtime_s {
            write!(f, ", lasts {runtime} s")?;
        }
        Ok(())
    }
}
