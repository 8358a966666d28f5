//! The text of a table, and the table that the binary carries.

/// The table for Cube AI that the binary carries.
const CUBE_AI: &str = include_str!("../../../../deploy/apis/cube-ai.yaml");

/// A table's text and the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSource {
    /// For people.
    pub file: String,
    /// YAML.
    pub text: String,
}

impl TableSource {
    /// What the binary carries.
    pub fn embedded() -> Vec<Self> {
        vec![Self { file: "cube-ai.yaml (embedded)".to_owned(), text: CUBE_AI.to_owned() }]
    }
}
