//! Every test that a document names exists.

use std::fs;

use patgate_testing::stack::project;

/// Panics unless every test that a document names is in `tests` or in the library. `group::*`
/// stands for all tests of a group; names of unit tests begin with a module of the library, those of
/// the other test programs with its name.
pub(crate) fn name_their_tests(tests: &[String]) {
    let mut named = 0;
    for document in ["docs/guarantees.md", "docs/security.md"] {
        let text = fs::read_to_string(project(document)).unwrap();
        for name in text.split('`').skip(1).step_by(2).filter(|name| is_of_a_test(name)) {
            assert!(!name.contains('…'), "{document}: `{name}` is not the whole name of a test");
            let known = match name.strip_suffix('*') {
                Some(group) => {
                    tests.iter().any(|test| test.starts_with(group))
                        || is_in_the_library(group.trim_end_matches(':'))
                        || is_in_the_library(group.trim_end_matches("::tests::"))
                }
                None => tests.iter().any(|test| test == name) || is_in_the_library(name),
            };
            assert!(known, "{document}: there is no test `{name}`");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} tests are named");
}

fn is_of_a_test(name: &str) -> bool {
    let module = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let Some((group, rest)) = name.split_once("::") else { return false };
    module(group)
        && !rest.is_empty()
        && rest.chars().all(|c| "*:…".contains(c) || u8::try_from(c).is_ok_and(module_byte))
}

/// Returns whether a module of the library has a test or a module of that name.
fn is_in_the_library(name: &str) -> bool {
    let source = |modules: &str| {
        let file = modules.replace("::", "/");
        let read = |root| fs::read_to_string(project(&format!("{root}/{file}.rs")));
        ["src", "crates/core/src", "tests"].map(|root| read(root).unwrap_or_default()).concat()
    };
    let (modules, test) = name.rsplit_once("::").unwrap();
    let within = modules.strip_suffix("::tests").unwrap_or(modules);
    let declared = [format!("fn {test}("), format!("mod {test} {{")];
    let declares = |text: &str| declared.iter().any(|it| text.contains(it));
    [within, modules].iter().any(|modules| declares(&source(modules))) || !source(name).is_empty()
}

fn module_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}
