-- A native subscription that does the same: the sample portal's tables in the audit cluster, kept by PostgreSQL's own apply worker, and a trigger that writes the event.
CREATE FUNCTION public.tell() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
  IF TG_TABLE_NAME = 'organizations' THEN
    INSERT INTO public.events VALUES (gen_random_uuid(), clock_timestamp(), 'org_created', '', NEW.name, 'organization', NULL, true, NULL,
      jsonb_build_object('state', lower(NEW.state), 'category', NEW.category));
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO public.events VALUES (gen_random_uuid(), clock_timestamp(), 'project_member_deleted', '', OLD.project, 'project', OLD.username, true, NULL,
      jsonb_build_object('kind', 'usermember', 'role', lower(OLD.role), 'state', lower(OLD.state)));
  ELSE
    INSERT INTO public.events VALUES (gen_random_uuid(), clock_timestamp(), CASE TG_OP WHEN 'INSERT' THEN 'project_member_added' ELSE 'project_member_updated' END,
      '', NEW.project, 'project', NEW.username, true, NULL,
      jsonb_build_object('kind', 'usermember', 'role', lower(NEW.role), 'state', lower(NEW.state)));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON portal.project_members FOR EACH ROW EXECUTE FUNCTION public.tell();
CREATE TRIGGER tell AFTER INSERT ON portal.organizations FOR EACH ROW EXECUTE FUNCTION public.tell();
ALTER TABLE portal.project_members ENABLE ALWAYS TRIGGER tell;
ALTER TABLE portal.organizations ENABLE ALWAYS TRIGGER tell;
