//! The mixed queries on all real servers at once; and the stores themselves are asked, by other clients than ours.

use weir_protocol_tests::money::UNIT;
use weir_protocol_tests::stack::Stack;
use weir_protocol_tests::world::World;

use super::stores;
use crate::mixed;

#[test]
fn two_hundred_mixed_queries_are_counted_on_the_real_stores_as_the_drivers_saw_them() {
    let stack = Stack::up();
    println!("the stack was ready after {:?}", stack.ready_after);
    let before = stack.settled_balance();
    stack.top_up(50 * UNIT);
    let used = mixed::run(&stack, before + 50 * UNIT);
    stores::assert_hold(&stack, &used);
}
