-- For an administrator of Postgres: the owner of patgate's database, with the password in a file.
\set password `cat /etc/patgate/operator/owner.password`
CREATE ROLE owner LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE patgate OWNER owner;
