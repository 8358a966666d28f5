-- After `patgate migrate`: a login for each program, with the passwords in files.
\set gateway `cat /etc/patgate/operator/gateway.password`
\set operator `cat /etc/patgate/operator/operator.password`
\set router `cat /etc/patgate/operator/router.password`
\set web `cat /etc/patgate/operator/web.password`
CREATE ROLE gateway LOGIN PASSWORD :'gateway' IN ROLE patgate_serve;
CREATE ROLE operator LOGIN PASSWORD :'operator' IN ROLE patgate_admin;
CREATE ROLE router LOGIN PASSWORD :'router' IN ROLE patgate_sync;
CREATE ROLE web LOGIN PASSWORD :'web' IN ROLE patgate_web;
