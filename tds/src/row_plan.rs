//! How whole ROWs are passed: columns whose lengths are foreseen are one step together, in which these lengths are compared and
//! nothing waits for them.
//!
//! Nothing here decides what a value is: where a length is not the foreseen one, the step's columns are walked one by one by
//! their [`Op`]s, and what they refuse is refused.

use std::ops::Range;

use crate::layout::{Op, ROW, ushort_len, widen};
use crate::lengths::Lengths;

/// A step over a row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Bytes without a length.
    Skip(usize),
    /// Values of foreseen lengths, of which one is preceded by its length, or two are, or several.
    One(Foreseen, usize),
    Two(Foreseen, Foreseen, usize),
    Some(Box<[Foreseen]>, usize),
    /// So many that eight bytes have more than one: these are compared together.
    Many(Box<[Word]>, usize),
    /// u8 length, one of these.
    Byte(Lengths),
    /// u16 length.
    UShort,
    /// u16 length, and behind it values of foreseen lengths.
    UShortOne(Foreseen, usize),
    UShortTwo(Foreseen, Foreseen, usize),
    /// As its op says.
    Other,
}

/// A length that is foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Foreseen {
    /// From the beginning of the step's values.
    at: u32,
    len: u8,
}

/// Which of eight bytes are lengths, and these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Word {
    mask: u64,
    lengths: u64,
}

/// A step that does not go as foreseen.
enum Halt {
    /// Its values are not all there.
    Short,
    /// A length is another one, or none is foreseen.
    Unforeseen,
}

/// The steps over a ROW.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowPlan {
    steps: Box<[Step]>,
    /// The columns of each.
    ops: Box<[Range<usize>]>,
}

impl RowPlan {
    /// Of a row with these columns.
    pub(crate) fn new(ops: &[Op]) -> Self {
        let (mut steps, mut ranges) = (Vec::new(), Vec::new());
        let mut at = 0;
        while let Some((op, behind)) = ops.get(at..).and_then(<[Op]>::split_first) {
            let (step, columns) = match op {
                Op::Fixed(_) | Op::Usual { .. } => Step::foreseen(ops.get(at..).unwrap_or_default()),
                Op::Byte(lengths) => (Step::Byte(*lengths), 1),
                Op::UShort => match Step::foreseen(behind) {
                    (Step::One(length, bytes), columns) => (Step::UShortOne(length, bytes), columns + 1),
                    (Step::Two(one, other, bytes), columns) => {
                        (Step::UShortTwo(one, other, bytes), columns + 1)
                    }
                    _ => (Step::UShort, 1),
                },
                _ => (Step::Other, 1),
            };
            steps.push(step);
            ranges.push(at..at + columns);
            at += columns;
        }
        Self {
            steps: steps.into_boxed_slice(),
            ops: ranges.into_boxed_slice(),
        }
    }

    /// Passes the ROWs at the head of `input` that are whole, at most `most` of them and none that begins where `left` bytes or
    /// fewer are left: how many, and what is behind them. Some of the last rows of an input are not passed although they are
    /// whole, as eight bytes are read at once.
    pub(crate) fn pass<'a>(
        &mut self,
        ops: &mut [Op],
        input: &'a [u8],
        most: u64,
        left: usize,
        misses_allowed: u16,
    ) -> (u64, &'a [u8]) {
        let (mut rest, mut rows) = (input, 0);
        loop {
            let mut limits = Limits {
                most: most.saturating_sub(rows),
                left,
                misses_allowed,
                gave_up: false,
            };
            let (more, behind) = self.rows(ops, rest, &mut limits);
            (rows, rest) = (rows.saturating_add(more), behind);
            if !limits.gave_up {
                return (rows, rest);
            }
            // Once per column and result set.
            *self = Self::new(ops);
        }
    }

    /// The same, until a column is no longer foreseen. Not inlined: in a larger function its loop would have no registers left.
    #[inline(never)]
    fn rows<'a>(&self, ops: &mut [Op], input: &'a [u8], limits: &mut Limits) -> (u64, &'a [u8]) {
        let (mut rest, mut rows) = (input, 0);
        let (steps, most, left) = (&*self.steps, limits.most, limits.left);
        while rows < most && rest.len() > left {
            let Some((&ROW, mut values)) = rest.split_first() else {
                break;
            };
            let mut ahead = steps.iter();
            while let Some(step) = ahead.next() {
                values = match step.pass(values) {
                    Ok(behind) => behind,
                    Err(Halt::Short) => return (rows, rest),
                    Err(Halt::Unforeseen) => match self.one_by_one(ahead.len(), ops, values, limits) {
                        Some(behind) => behind,
                        None => return (rows, rest),
                    },
                };
            }
            rest = values;
            rows += 1;
            if limits.gave_up {
                break;
            }
        }
        (rows, rest)
    }

    /// What is behind the columns of the step that has `ahead` steps behind it, whatever their lengths.
    #[inline(never)]
    fn one_by_one<'a>(
        &self,
        ahead: usize,
        ops: &mut [Op],
        values: &'a [u8],
        limits: &mut Limits,
    ) -> Option<&'a [u8]> {
        let step = self.ops.len().checked_sub(ahead)?.checked_sub(1)?;
        let mut at = 0;
        for op in ops.get_mut(self.ops.get(step)?.clone())? {
            let foreseen = matches!(op, Op::Usual { .. });
            at = op.end(values, at, limits.misses_allowed)?;
            limits.gave_up |= foreseen && !matches!(op, Op::Usual { .. });
        }
        values.get(at..)
    }
}

/// How far rows are passed.
struct Limits {
    most: u64,
    left: usize,
    misses_allowed: u16,
    /// A column has missed its foreseen length too often: it is foreseen no more.
    gave_up: bool,
}

impl Step {
    /// What is behind the step whose values are at the head of `values`.
    #[inline(always)]
    fn pass<'a>(&self, values: &'a [u8]) -> Result<&'a [u8], Halt> {
        let mut values = values;
        let bytes = match self {
            Self::Skip(bytes) => *bytes,
            Self::One(length, bytes) => {
                length.check(values)?;
                *bytes
            }
            Self::Two(one, other, bytes) => {
                one.check(values)?;
                other.check(values)?;
                *bytes
            }
            Self::Some(lengths, bytes) => {
                for length in lengths {
                    length.check(values)?;
                }
                *bytes
            }
            Self::Many(words, bytes) => {
                check_words(words, values)?;
                *bytes
            }
            Self::Byte(lengths) => {
                let len = *values.first().ok_or(Halt::Short)?;
                if !lengths.allow(len) {
                    return Err(Halt::Unforeseen);
                }
                usize::from(len) + 1
            }
            Self::UShort => ushort(values)?,
            Self::UShortOne(length, bytes) => {
                values = values.get(ushort(values)?..).ok_or(Halt::Short)?;
                length.check(values)?;
                *bytes
            }
            Self::UShortTwo(one, other, bytes) => {
                values = values.get(ushort(values)?..).ok_or(Halt::Short)?;
                one.check(values)?;
                other.check(values)?;
                *bytes
            }
            Self::Other => return Err(Halt::Unforeseen),
        };
        values.get(bytes..).ok_or(Halt::Short)
    }

    /// Over the columns at the head of `ops` whose lengths are foreseen; how many these are.
    fn foreseen(ops: &[Op]) -> (Self, usize) {
        let mut lengths: Vec<Foreseen> = Vec::new();
        let (mut at, mut columns) = (0_u32, 0);
        for op in ops {
            let value = match *op {
                Op::Fixed(n) => n,
                Op::Usual { len, .. } => u32::from(len) + 1,
                _ => break,
            };
            // More than a row can have; such values are another step.
            let Some(end) = at.checked_add(value) else { break };
            if let Op::Usual { len, .. } = *op {
                lengths.push(Foreseen { at, len });
            }
            columns += 1;
            at = end;
        }
        let at = widen(at);
        let words = lengths.last().map_or(0, |last| widen(last.at) / 8 + 1);
        let step = match lengths.as_slice() {
            [] => Self::Skip(at),
            [length] => Self::One(*length, at),
            [one, other] => Self::Two(*one, *other, at),
            // A word costs as much as a length, and has the lengths of all of it.
            _ if words < lengths.len() => Self::Many(into_words(&lengths, words), at),
            _ => Self::Some(lengths.into_boxed_slice(), at),
        };
        (step, columns)
    }
}

impl Foreseen {
    #[inline(always)]
    fn check(&self, values: &[u8]) -> Result<(), Halt> {
        match values.get(widen(self.at)) {
            Some(len) if *len == self.len => Ok(()),
            Some(_) => Err(Halt::Unforeseen),
            None => Err(Halt::Short),
        }
    }
}

fn into_words(lengths: &[Foreseen], count: usize) -> Box<[Word]> {
    let mut words = vec![Word::default(); count];
    for length in lengths {
        let at = widen(length.at);
        if let Some(word) = words.get_mut(at / 8) {
            let shift = at % 8 * 8;
            word.mask |= 0xFF << shift;
            word.lengths |= u64::from(length.len) << shift;
        }
    }
    words.into_boxed_slice()
}

/// A branch for each word, which is foreseen too: without them the compiler makes vectors of a loop of two or three.
#[inline(always)]
fn check_words(words: &[Word], values: &[u8]) -> Result<(), Halt> {
    let mut rest = values;
    for word in words {
        let (there, behind) = rest.split_first_chunk::<8>().ok_or(Halt::Short)?;
        if u64::from_le_bytes(*there) & word.mask != word.lengths {
            return Err(Halt::Unforeseen);
        }
        rest = behind;
    }
    Ok(())
}

/// Bytes of the value with a u16 length at the head of `values`.
#[inline(always)]
fn ushort(values: &[u8]) -> Result<usize, Halt> {
    let len = values.first_chunk::<2>().ok_or(Halt::Short)?;
    Ok(ushort_len(u16::from_le_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift: the same numbers in every run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % below
        }

        fn op(&mut self) -> Op {
            match self.below(8) {
                0 => Op::Fixed(u32::try_from(self.below(40)).unwrap()),
                1 => Op::Byte(Lengths::ANY),
                2 => Op::UShort,
                3 => Op::LongText,
                len => Op::Usual {
                    len: 1 << (len - 4),
                    misses: 0,
                    lengths: Lengths::ANY,
                },
            }
        }

        /// A value, of another length than the foreseen one in one of `misses`.
        fn value(&mut self, op: Op, misses: u64, out: &mut Vec<u8>) {
            let len = match op {
                Op::Fixed(n) => u64::from(n),
                Op::Usual { len, .. } if self.below(misses) > 0 => u64::from(len),
                _ => self.below(20),
            };
            match op {
                Op::Fixed(_) => {}
                Op::UShort if len == 7 => return out.extend([0xFF; 2]),
                Op::UShort => out.extend(u16::try_from(len).unwrap().to_le_bytes()),
                Op::LongText if len == 7 => return out.extend([0xFF; 4]),
                Op::LongText => out.extend(u32::try_from(len).unwrap().to_le_bytes()),
                _ => out.push(u8::try_from(len).unwrap()),
            }
            (0..len).for_each(|_| out.push(u8::try_from(self.below(256)).unwrap()));
        }
    }

    #[test]
    fn rows_end_where_their_last_value_does_whatever_was_foreseen() {
        let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
        for _ in 0..300 {
            let mut ops: Vec<Op> = (0..=numbers.below(24)).map(|_| numbers.op()).collect();
            let misses = 2 << (3 * numbers.below(4));
            let (mut stream, mut ends) = (Vec::new(), vec![0]);
            for _ in 0..200 {
                stream.push(ROW);
                ops.iter().for_each(|op| numbers.value(*op, misses, &mut stream));
                ends.push(stream.len());
            }
            let mut plan = RowPlan::new(&ops);
            let (mut at, mut rows, mut cut) = (0, 0, 0);
            // Shorter and longer pieces; what is left over in one comes again at the head of the next.
            while rows < 200 {
                cut = (cut + 1 + usize::try_from(numbers.below(3000)).unwrap()).min(stream.len());
                let more = numbers.below(150);
                let (passed, rest) = plan.pass(&mut ops, stream.get(at..cut).unwrap(), more, 0, 5);
                assert!(passed <= more);
                rows += usize::try_from(passed).unwrap();
                at = cut - rest.len();
                assert_eq!(Some(&at), ends.get(rows), "after {rows} rows of {ops:?}");
                if cut == stream.len() && passed == 0 && more > 0 {
                    // Eight bytes behind a length are no longer there.
                    assert!(stream.len() - at < 1500 && rows >= 195, "{rows} rows of {ops:?}");
                    break;
                }
            }
        }
    }

    #[test]
    fn no_row_begins_behind_a_limit() {
        let mut ops = [Op::Usual {
            len: 4,
            misses: 0,
            lengths: Lengths::ANY,
        }];
        let stream = [ROW, 4, 1, 2, 3, 4].repeat(10);
        let mut plan = RowPlan::new(&ops);
        for (most, left, expected) in [
            (3, 0, 3),
            (0, 0, 0),
            (99, 6, 9),
            (99, 5, 10),
            (99, 59, 1),
            (99, 60, 0),
        ] {
            let (rows, rest) = plan.pass(&mut ops, &stream, most, left, 5);
            assert_eq!(
                (rows, rest.len()),
                (expected, 60 - 6 * usize::try_from(expected).unwrap())
            );
        }
    }
}
