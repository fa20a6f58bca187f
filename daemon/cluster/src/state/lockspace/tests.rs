//! The barrier, word by word; the simulator has the whole of it.

use super::*;
use crate::fencing::{Cause, Proven};
use crate::state::Command;
use crate::words::{ClusterGeneration, Incarnation, Life};

fn boot(slot: u8, incarnation: u64) -> Identity {
    Identity { slot: Slot(slot), incarnation: Incarnation::new(incarnation).unwrap(), life: Life::default() }
}

/// A gateway and two nodes, of which a generation was formed of those present.
fn formed(present: &[Identity]) -> (Config, State) {
    let text = include_str!("../../config/good.toml").replace("read_only = true\n", "");
    let config = Config::parse(&format!("{text}[shared]\nfilesystem = \"gfs2\"\n")).unwrap();
    let state = State::formed(&config, ClusterGeneration(7), present);
    (config, state)
}

/// Applies a command, and tells the epoch's number, whether it is held, and who runs it.
fn after(config: &Config, state: &mut State, command: Command) -> (u64, bool, Vec<u8>) {
    state.apply(config, command);
    let Lockspace { number, holding, members, .. } = &state.lockspace;
    (*number, *holding, members.iter().map(|slot| slot.0).collect())
}

fn proven(identity: Identity) -> Command {
    Command::Proven(Proven::by_operator(identity, "it", "it").unwrap())
}

/// Both nodes run it, in epoch 1.
fn running() -> (Config, State, [Identity; 2]) {
    let nodes = [boot(1, 1), boot(2, 2)];
    let (config, mut state) = formed(&[boot(0, 9), nodes[0], nodes[1]]);
    assert_eq!(after(&config, &mut state, Command::Mount(nodes[0], 0, Word::Out)), (1, true, vec![]), "not asked yet");
    assert_eq!(after(&config, &mut state, Command::Mount(nodes[0], 1, Word::Out)), (1, true, vec![]));
    assert_eq!(after(&config, &mut state, Command::Mount(nodes[1], 1, Word::Held)), (1, false, vec![1, 2]));
    (config, state, nodes)
}

#[test]
fn nobody_runs_before_every_slot_is_known() {
    let (config, mut state) = formed(&[boot(0, 9), boot(1, 1)]);
    let absent = Identity::absent(Slot(2));
    assert_eq!(after(&config, &mut state, Command::Disarm(false)), (0, false, vec![]), "one may still have it");
    assert_eq!(after(&config, &mut state, proven(absent)), (1, true, vec![]));
    assert_eq!(after(&config, &mut state, Command::Mount(boot(1, 1), 1, Word::Held)), (1, false, vec![1]));
    assert!(!state.lockspace.serves(Slot(1)));
    after(&config, &mut state, Command::Mount(boot(1, 1), 1, Word::Mounted));
    assert!(state.lockspace.serves(Slot(1)));
}

#[test]
fn one_that_is_dead_is_dropped_when_it_is_proven_off_though_it_had_said_that_it_holds() {
    let (config, mut state, [one, two]) = running();
    state.fill(&config, boot(2, 3));
    let newer = boot(2, 3);
    assert_eq!(after(&config, &mut state, Command::Mount(newer, 2, Word::Held)), (2, true, vec![1, 2]));
    assert_eq!(after(&config, &mut state, Command::Mount(two, 2, Word::Out)), (2, true, vec![1, 2]), "it is gone");
    assert_eq!(after(&config, &mut state, Command::Suspect(newer, Cause::Absent)), (2, true, vec![1, 2]));
    assert_eq!(after(&config, &mut state, Command::Mount(one, 2, Word::Held)), (2, true, vec![1, 2]), "not proven");
    assert_eq!(after(&config, &mut state, proven(newer)), (2, false, vec![1]));
}

#[test]
fn the_living_are_not_held_for_one_that_is_not_proven_off() {
    let (config, mut state, [one, two]) = running();
    let suspect = Command::Suspect(two, Cause::Absent);
    assert_eq!(after(&config, &mut state, suspect), (1, false, vec![1, 2]));
    assert_eq!(after(&config, &mut state, proven(two)), (2, true, vec![1, 2]));
    assert_eq!(after(&config, &mut state, Command::Mount(one, 2, Word::Held)), (2, false, vec![1]));
}

#[test]
fn a_word_of_another_epoch_means_nothing() {
    let (config, mut state, [one, two]) = running();
    for word in [Word::Held, Word::Out] {
        assert_eq!(after(&config, &mut state, Command::Mount(one, 1, word)), (1, false, vec![1, 2]), "said when held");
        assert_eq!(state.lockspace.mount(one).unwrap().stands, Stands::In);
    }
    for word in [Word::Held, Word::Out, Word::LetGo, Word::Failed, Word::Mounted] {
        for number in [0, 2, u64::MAX] {
            assert_eq!(after(&config, &mut state, Command::Mount(one, number, word)), (1, false, vec![1, 2]));
        }
        after(&config, &mut state, Command::Mount(boot(1, 77), 1, word));
        assert_eq!(state.lockspace.mount(two).unwrap().stands, Stands::In);
    }
    assert!(!state.lockspace.serves(Slot(1)));
}

#[test]
fn who_lets_go_is_dropped_and_may_leave_only_then() {
    let (config, mut state, [one, two]) = running();
    after(&config, &mut state, Command::Leave(one));
    after(&config, &mut state, Command::Left(one));
    assert_eq!(state.member(one).unwrap().standing, Standing::Leaving, "it still has it");
    assert_eq!(after(&config, &mut state, Command::Mount(one, 1, Word::LetGo)), (2, true, vec![1, 2]));
    after(&config, &mut state, Command::Left(one));
    assert_eq!(state.member(one).unwrap().standing, Standing::Off);
    assert_eq!(after(&config, &mut state, Command::Mount(two, 2, Word::Held)), (2, false, vec![2]));
}

#[test]
fn who_could_not_mount_it_comes_back_when_it_is_to_try_again() {
    let (config, mut state, [one, two]) = running();
    assert_eq!(after(&config, &mut state, Command::Mount(one, 1, Word::Failed)), (2, true, vec![1, 2]));
    assert_eq!(after(&config, &mut state, Command::Mount(two, 2, Word::Held)), (2, false, vec![2]));
    assert_eq!(after(&config, &mut state, Command::MountAgain(two)), (2, false, vec![2]));
    assert_eq!(after(&config, &mut state, Command::MountAgain(one)), (3, true, vec![2]));
    assert_eq!(after(&config, &mut state, Command::Mount(two, 3, Word::Held)), (3, false, vec![1, 2]));
}

#[test]
fn without_gfs2_there_is_no_lockspace() {
    let config = Config::parse(include_str!("../../config/good.toml")).unwrap();
    let mut state = State::formed(&config, ClusterGeneration(7), &[boot(0, 9), boot(1, 1)]);
    assert_eq!(after(&config, &mut state, Command::Mount(boot(1, 1), 0, Word::Out)), (0, false, vec![]));
    assert_eq!(state.lockspace, Lockspace::default());
    assert!(state.lockspace.serves(Slot(1)) && state.lockspace.is_out(Slot(1)));
}
