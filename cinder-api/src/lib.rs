//! OpenStack's Block Storage API, version 3, over volumes of storaged: in place of Cinder in Keystone's catalogue.
//!
//! Requests come in at the [`door`], which knows who asks and in which version; [`api`] decides, in one transaction of
//! [`records`], what is to be so from now on; [`work`] makes it so in the storage ([`storage`]), by whichever process lives.
//! Any number of these processes run side by side: none has anything that the others have not.
#![forbid(unsafe_code)]

pub mod api;
pub mod backup;
pub mod capabilities;
pub mod config;
pub mod connections;
pub mod device;
pub mod door;
pub mod fault;
pub mod http;
pub mod identity;
pub mod images;
pub mod keys;
pub mod limits;
pub mod metrics;
pub mod nova;
pub mod openapi;
pub mod policy;
pub mod qos;
pub mod quota;
pub mod rates;
pub mod records;
pub mod request;
pub mod routes;
pub mod service;
pub mod serving;
pub mod storage;
pub mod work;
