//! Compiles tables, and refuses tables that conflict with one another.

use super::{
    Api, Apis, TableError, TableErrors,
    host::HostPattern,
    table::{self, Table},
    table_source::TableSource,
    tree::Tree,
};

impl Apis {
    /// Compiles tables.
    ///
    /// # Errors
    ///
    /// Returns every error in each table; if there are none, every conflict between tables.
    pub fn compile(sources: &[TableSource]) -> Result<Self, TableErrors> {
        let mut errors = Vec::new();
        let read = |source: &TableSource| table::read(&source.file, &source.text, &mut errors);
        let tables: Vec<Table> = sources.iter().filter_map(read).collect();
        for (at, table) in tables.iter().enumerate() {
            for earlier in &tables[..at] {
                errors.extend(conflict(earlier, table));
            }
        }
        let mut apis = Self::default();
        for table in tables {
            apis.add(table, &mut errors);
        }
        if errors.is_empty() { Ok(apis) } else { Err(TableErrors(errors)) }
    }

    fn add(&mut self, table: Table, errors: &mut Vec<TableError>) {
        let mounts = match &table.host {
            HostPattern::Any => &mut self.anywhere,
            HostPattern::Exact(host) => self.at.entry(host.clone()).or_default(),
            HostPattern::Under(suffix) => self.under.entry(suffix.clone()).or_default(),
        };
        mounts.insert(&table.mount, self.all.len());
        let mut tree = Tree::default();
        for (number, row) in table.rows.iter().enumerate() {
            tree.overlapping(&row.rule.template, &mut |earlier: &usize| {
                let earlier = &table.rows[*earlier];
                for method in earlier.rule.methods.common(row.rule.methods) {
                    let problem = format!(
                        "{method} overlaps rule `{}` (line {}): a request could fall under both",
                        earlier.title, earlier.line
                    );
                    errors.push(TableError {
                        file: table.file.clone(),
                        line: row.line,
                        rule: Some(row.title.clone()),
                        problem,
                    });
                }
            });
            tree.insert(&row.rule.template, number);
        }
        self.all.push(Api {
            name: table.name,
            host: table.host,
            mount: table.mount,
            api_style: table.api_style,
            errors: table.errors,
            cookies: table.cookies,
            domain: table.domain,
            upstream: table.upstream,
            tree,
            rules: table.rows.into_iter().map(|row| row.rule).collect(),
        });
    }
}

/// Finds a conflict between two tables. A request must belong to at most one table: which table decides
/// it must not depend on their order.
fn conflict(earlier: &Table, table: &Table) -> Option<TableError> {
    let there = format!("`{}` ({}:{})", earlier.name, earlier.file, earlier.line);
    let problem = if earlier.name == table.name {
        format!("another table has the name {there}")
    } else if earlier.host.overlaps(&table.host) && earlier.mount.shares_paths_below(&table.mount) {
        format!(
            "`{}` overlaps table {there}: a request could belong to both; give them different \
             hosts or mounts",
            table.name
        )
    } else {
        return None;
    };
    Some(TableError { file: table.file.clone(), line: table.line, rule: None, problem })
}
