-- Makes a table visible one tenant at a time, to its owner too. With `queue` the kit's system scope sees every
-- tenant's rows as well, so such a table holds ids and no content.
CREATE FUNCTION isolate_tenants(target regclass, queue boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    visible text := 'tenant = current_setting(''app.tenant'', true)';
BEGIN
    IF queue THEN
        visible := visible || ' OR current_setting(''app.tenant'', true) = ''*''';
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
    EXECUTE format('CREATE POLICY one_tenant ON %s USING (%s) WITH CHECK (%s)', target, visible, visible);
END
$$;
