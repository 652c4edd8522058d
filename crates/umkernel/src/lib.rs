//! A user-mode Linux kernel.
#![no_std]
