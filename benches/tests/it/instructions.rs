//! Every kernel gives its answer and has a limit; the judge of instruction counts sees what is over.

use std::collections::BTreeMap;

use weir_benches::instructions::{Count, Limit, Limits, judge, limits};
use weir_benches::kernels::{ALL, Kernel};

#[test]
fn every_kernel_gives_the_same_answer_again() {
    for kernel in ALL {
        let mut work = kernel
            .prepare()
            .unwrap_or_else(|e| panic!("{}: {e}", kernel.name));
        let units = [(); 3].map(|()| work().unwrap_or_else(|e| panic!("{}: {e}", kernel.name)));
        assert!(
            units[0] > 0 && units == [units[0]; 3],
            "{}: {units:?}",
            kernel.name
        );
    }
}

#[test]
fn every_kernel_has_a_limit_and_every_limit_a_kernel() {
    let limits = limits().expect("the committed limits");
    let names: Vec<&str> = limits.keys().map(String::as_str).collect();
    let mut there: Vec<&str> = ALL.iter().map(|kernel| kernel.name).collect();
    there.sort_unstable();
    assert_eq!(names, there, "run `kernels update`");
    for kernel in ALL {
        assert_eq!(limits[kernel.name].unit, kernel.unit);
    }
}

fn judged(name: &str, instructions: f64, limit: Option<f64>) -> (String, bool) {
    let kernel = Kernel::named(name).expect("a kernel");
    let limit = limit.map(|instructions| Limit {
        instructions,
        unit: kernel.unit.to_owned(),
    });
    let limits: Limits = limit.map(|limit| (name.to_owned(), limit)).into_iter().collect();
    judge(&[Count { kernel, instructions }], &limits)
}

#[test]
fn three_per_cent_are_allowed_and_no_more() {
    assert!(judged("walker/events", 102.9, Some(100.0)).1);
    assert!(
        judged("walker/events", 50.0, Some(100.0)).1,
        "cheaper is no fault"
    );
    let (table, holds) = judged("walker/events", 103.1, Some(100.0));
    assert!(
        !holds && table.contains("+3.1 %") && table.contains("OVER ITS LIMIT"),
        "{table}"
    );
    assert!(!judged("walker/events", 1.0, None).1, "a kernel without a limit");
    assert!(judge(&[], &BTreeMap::new()).1);
}

#[test]
fn a_row_of_the_anchors_shape_has_a_limit_that_no_commit_moves() {
    assert!(judged("walker/mixed", 110.0, Some(110.0)).1);
    let (table, holds) = judged("walker/mixed", 110.1, Some(110.0));
    assert!(!holds, "{table}");
}
