-- Makes the roles and schemas that the services log in with. Run once by psql as a superuser, in the mesh's database, with
-- the passwords in the environment: <SERVICE>_OWNER_PASSWORD (migrations) and <SERVICE>_PASSWORD (the service).
\set ON_ERROR_STOP on
\getenv ingestion_owner_password INGESTION_OWNER_PASSWORD
\getenv ingestion_password INGESTION_PASSWORD
\getenv agent_owner_password AGENT_OWNER_PASSWORD
\getenv agent_password AGENT_PASSWORD
\getenv crew_owner_password CREW_OWNER_PASSWORD
\getenv crew_password CREW_PASSWORD

CREATE ROLE ingestion_owner LOGIN PASSWORD :'ingestion_owner_password';
CREATE ROLE ingestion LOGIN PASSWORD :'ingestion_password';
CREATE SCHEMA ingestion AUTHORIZATION ingestion_owner;

CREATE ROLE agent_owner LOGIN PASSWORD :'agent_owner_password';
CREATE ROLE agent LOGIN PASSWORD :'agent_password';
CREATE SCHEMA agent AUTHORIZATION agent_owner;

CREATE ROLE crew_owner LOGIN PASSWORD :'crew_owner_password';
CREATE ROLE crew LOGIN PASSWORD :'crew_password';
CREATE SCHEMA crew AUTHORIZATION crew_owner;
