//! Dates of the calendar, in UTC.

/// `2026-11-21T18:35:00`: so many seconds after 1970 began. Years count from 1 March here, so that the odd day is the last (Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub(crate) fn seconds(since_1970: u64) -> String {
    let (days, second) = (since_1970 / 86_400 + 719_468, since_1970 % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (year, minute) = (era * 400 + year + turn, second / 60);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", minute / 60, minute % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (at, date) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_767_225_599, "2025-12-31T23:59:59"),
            (1_795_286_100, "2026-11-21T18:35:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(seconds(at), date);
        }
    }
}
