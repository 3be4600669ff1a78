//! Makes the counting allocator this binary's own.

pub(crate) use weir_protocol_tests::allocation::peak;
use weir_protocol_tests::allocation::{Counting, live};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_vector_is_counted() {
    let before = live();
    let (kept, most) = peak(|| {
        drop(vec![0u8; 10_000]);
        vec![0u8; 500]
    });
    assert!((10_000..11_000).contains(&most), "{most}");
    assert_eq!(live() - before, 500);
    assert_eq!(kept.len(), 500);
}
