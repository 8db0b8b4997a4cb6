-- What is done when mirrors have too much write-ahead log kept: what one
-- session can see of it.  test/t/088_pressure.pl has the rest.
SELECT level, measured, free, slot, reason ~ '^nothing is watched' AS unwatched
	FROM narinfo.stat_pressure;
SELECT t.tgrelid::regclass, t.tgenabled, pg_get_triggerdef(t.oid) ~ 'BEFORE INSERT OR DELETE OR UPDATE' AS before_all
	FROM pg_trigger AS t WHERE t.tgname = 'pressure' ORDER BY 1;
SHOW pg_narinfo.wal_reserve;
SHOW pg_narinfo.max_retained_wal;
SHOW pg_narinfo.drop_slots;
SET pg_narinfo.drop_slots = 'all';
SELECT narinfo.pressure_admit();
-- without mirrors there is nothing to drop
SELECT * FROM narinfo.site_slots();
SELECT * FROM narinfo.site_mark_dropped(true, 0, 'why');
SELECT narinfo.site_drop_marked(), narinfo.site_votes('nobody'),
	narinfo.site_slot_problem('nobody');
SET ROLE narinfo_reader;
SELECT level FROM narinfo.stat_pressure;
SELECT narinfo.site_drop_marked();
RESET ROLE;
