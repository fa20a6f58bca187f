//! What kind of thing is said, for whoever sorts the event log by machine: a name that is not a sentence, and how grave it is.

use super::Trace;
use crate::words::Supply;

/// How grave something is (RFC 5424, table 2; the two above and the one below are never ours to say).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A part of the cluster does not work, and nothing but an administrator or a reset will mend it.
    Critical,
    /// Something that was wanted failed, or was lost.
    Error,
    /// Something is not as it should be, and is being dealt with.
    Warning,
    /// As it should be, and an administrator would want to know.
    Notice,
    /// As it should be.
    Informational,
}

impl Severity {
    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Critical => 2,
            Self::Error => 3,
            Self::Warning => 4,
            Self::Notice => 5,
            Self::Informational => 6,
        }
    }
}

/// The kind of a line of the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name: the variant's, for what the core says. At most 32 ASCII letters.
    pub name: &'static str,
    /// How grave it is.
    pub severity: Severity,
}

/// The table: every variant stands once, behind its severity.
macro_rules! kinds {
    ($trace:expr; $($severity:ident: $($variant:ident)+;)+) => {
        match $trace {
            $($(Trace::$variant { .. } => Kind { name: stringify!($variant), severity: Severity::$severity },)+)+
        }
    };
}

impl Trace {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let kind = kinds! { self;
            Critical: Inquorate FencedAlive SelfFencing PastHelp;
            Error: Failing SaysFailing Absent NotArmed NotFenced DrillFailed Lost NoRoom NotStarted GaveUp NotMoved NotPushed
                NotDestroyed NotShutDown NotSuspended NotPoweredOn NotReserved NotKept NotCut NotHeld NotMounted NotLetGo
                WasRemoved RollingStopped RollingLost;
            Warning: Quiet LinkQuiet Abandoned Suspected SuspectedFailing Fencing Barring AwaitingWatchdog Spared
                UpsSilent Supply Withdrawn Sheds Disarmed Refused MakesRoom Ended Stays Destroying DoesWithout Malformed
                Shunned KeyAwaited;
            Notice: Up Back LinkBack Forming Joined BecameDc NoLongerDc Quorate Filled Recalled Fenced DrillPassed UpsHeard Remains
                Waking CutsLoad Duty Armed Wanted Unwanted Asked PoweringOn PoweredOn Leaving Left PoweringOff
                Added Removed TrialBegins TrialEnded Configured Rekeyed KeyHeld KeyAlone
                RollingBegins RollingTurn Restarting RollingReturned RollingEnded;
            Informational: Decided Speaks Heard Defined Adopted Assigned Creating Resuming Started Moving Pulling Pushing Moved
                ShuttingDown Suspending Epoch LockspaceHeld LockspaceRuns Mounting Mounted LettingGo LetGo;
        };
        let Self::Supply { supply, .. } = self else { return kind };
        match supply {
            Supply::Mains => Kind { severity: Severity::Notice, ..kind },
            Supply::Battery | Supply::Failing => kind,
            Supply::Low => Kind { severity: Severity::Critical, ..kind },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_named_as_its_variant_and_is_as_grave_as_what_it_says() {
        let supply = |supply| Trace::Supply { ups: "u1".to_owned(), supply }.kind();
        assert_eq!(Trace::Quorate.kind(), Kind { name: "Quorate", severity: Severity::Notice });
        assert_eq!(Trace::Inquorate.kind().severity, Severity::Critical);
        assert_eq!(supply(Supply::Mains), Kind { name: "Supply", severity: Severity::Notice });
        assert_eq!(supply(Supply::Battery).severity, Severity::Warning);
        assert_eq!(supply(Supply::Low).severity, Severity::Critical);
    }
}
