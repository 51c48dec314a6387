//! What many slices say together.
//!
//! A figure of a contender is paired with another's only if both are of the same round, a moment
//! apart. So whatever the machine does for longer than a round meets both and leaves their ratio
//! alone, and a stall that meets one spoils one ratio of many, which quartiles do not show.

/// The values below which a quarter, half and three quarters of all lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Quartiles {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Quartiles {
    /// Between two values the quartile lies in proportion; without any there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Quartiles> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Quartiles { low: at(0.25), median: at(0.5), high: at(0.75) })
    }
}

impl From<Quartiles> for [f64; 3] {
    fn from(Quartiles { low, median, high }: Quartiles) -> [f64; 3] {
        [low, median, high]
    }
}

/// The ratios of one to the other in those rounds in which both have a figure.
pub(crate) fn paired(
    one: impl IntoIterator<Item = Option<f64>>,
    other: impl IntoIterator<Item = Option<f64>>,
) -> impl Iterator<Item = f64> {
    one.into_iter().zip(other).filter_map(|(one, other)| Some(one? / other?))
}

/// The mean of the middle half. Disturbed blocks do not count, as in a median; but where something
/// is now in one state and now in another, as rings are that run full or empty, a median would be
/// that of either by chance.
pub(crate) fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let half = &values[quarter..values.len() - quarter];
    half.iter().sum::<f64>() / half.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_five_are_the_second_third_and_fourth() {
        let quartiles = Quartiles::of([50.0, 10.0, 40.0, 20.0, 30.0]);
        assert_eq!(quartiles, Some(Quartiles { low: 20.0, median: 30.0, high: 40.0 }));
    }

    #[test]
    fn quartiles_between_two_values_lie_in_proportion() {
        let quartiles = Quartiles::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(quartiles, Some(Quartiles { low: 1.75, median: 2.5, high: 3.25 }));
    }

    #[test]
    fn one_value_is_all_quartiles_and_none_has_none() {
        let quartiles = Quartiles::of([7.0]);
        assert_eq!(quartiles, Some(Quartiles { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Quartiles::of([]), None);
    }

    #[test]
    fn figures_are_paired_by_round_and_missing_ones_leave_their_round_out() {
        let one = [Some(10.0), None, Some(30.0), Some(40.0)];
        let other = [Some(5.0), Some(1.0), None, Some(80.0)];
        assert_eq!(paired(one, other).collect::<Vec<_>>(), [2.0, 0.5]);
    }

    #[test]
    fn a_machine_at_half_speed_for_half_the_rounds_changes_no_paired_ratio() {
        let speeds = |full: f64| (0..30).map(move |round| Some(full / f64::from(1 + round % 2)));
        let ratios = Quartiles::of(paired(speeds(60.0), speeds(40.0)));
        assert_eq!(ratios, Some(Quartiles { low: 1.5, median: 1.5, high: 1.5 }));
        // While each one's own figure is now twice the other's and now the same.
        let own = Quartiles::of(speeds(60.0).flatten());
        assert_eq!(own, Some(Quartiles { low: 30.0, median: 45.0, high: 60.0 }));
    }

    #[test]
    fn stalls_of_one_contender_in_a_fifth_of_the_rounds_do_not_move_its_ratios() {
        let stalled = (0..30).map(|round| Some(if round % 5 == 0 { 0.01 } else { 60.0 }));
        let ratios = Quartiles::of(paired(stalled, vec![Some(40.0); 30]));
        assert_eq!(ratios, Some(Quartiles { low: 1.5, median: 1.5, high: 1.5 }));
    }

    #[test]
    fn disturbed_blocks_are_not_in_the_middle() {
        assert_eq!(middle(vec![1e9, 2.0, 0.0, 4.0]), 3.0);
    }
}
