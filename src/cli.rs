//! The administrator's commands.
