"""Alerts are suppressed, escalated and watched: silences, heartbeats, an append-only history."""

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

HISTORY = 'id, alert_id, seq, at, actor, action, from_, "to", reason, request_id, reading_key, data'


def upgrade() -> None:
    # The large column stays the last of its row: SQLite walks through it to whatever comes behind.
    op.execute('ALTER TABLE alerts RENAME COLUMN evidence TO evidence_before')
    op.add_column('alerts', sa.Column('suppressed_by', sa.JSON(none_as_null=True), nullable=True))
    op.add_column('alerts', sa.Column('is_suppressed', sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column('alerts', sa.Column('flaps', sa.JSON(none_as_null=True), nullable=True))
    op.add_column('alerts', sa.Column('ack_expires_at', sa.Float(), nullable=True))
    op.add_column('alerts', sa.Column('waiting_since', sa.Float(), nullable=True))
    op.add_column('alerts', sa.Column('escalation_level', sa.Integer(), server_default='0', nullable=False))
    op.add_column('alerts', sa.Column('escalated_to', sa.String(length=80), nullable=True))
    op.add_column('alerts', sa.Column('evidence', sa.JSON(), nullable=True))
    op.execute('UPDATE alerts SET evidence = evidence_before')
    op.execute('ALTER TABLE alerts DROP COLUMN evidence_before')
    # Who waited before now waits from now on: an upgrade escalates nothing.
    now = "strftime('%s', 'now')" if op.get_bind().dialect.name == 'sqlite' else 'extract(epoch from now())'
    op.execute(f"UPDATE alerts SET waiting_since = {now} WHERE handling = 'new'")
    op.create_index('ix_alerts_ack_expires', 'alerts', ['ack_expires_at'], unique=False,
        sqlite_where=sa.text('ack_expires_at IS NOT NULL'), postgresql_where=sa.text('ack_expires_at IS NOT NULL'))
    op.create_index('ix_alerts_waiting', 'alerts', ['severity', 'escalation_level', 'waiting_since'], unique=False,
        sqlite_where=sa.text("handling = 'new'"), postgresql_where=sa.text("handling = 'new'"))
    op.create_index('ix_alerts_suppressed', 'alerts', ['id'], unique=False,
        sqlite_where=sa.text('is_suppressed IS 1'), postgresql_where=sa.text('is_suppressed IS true'))

    op.create_table('silences',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('tenant', sa.String(length=64), nullable=True),
    sa.Column('matchers', sa.JSON(), nullable=False),
    sa.Column('starts_at', sa.Float(), nullable=False),
    sa.Column('ends_at', sa.Float(), nullable=False),
    sa.Column('repeats', sa.String(length=16), nullable=False),
    sa.Column('time_zone', sa.String(length=64), nullable=False),
    sa.Column('repeats_until', sa.Float(), nullable=True),
    sa.Column('comment', sa.Text(), nullable=False),
    sa.Column('created_by', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('updated_by', sa.String(length=64), nullable=False),
    sa.Column('updated_at', sa.Float(), nullable=False),
    sa.Column('expired_by', sa.String(length=64), nullable=True),
    sa.Column('active_from', sa.Float(), nullable=True),
    sa.Column('active_until', sa.Float(), nullable=True),
    sa.Column('due_at', sa.Float(), nullable=True),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('told_version', sa.Integer(), nullable=False),
    sa.Column('request_id', sa.String(length=64), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_silences')),
    sa.UniqueConstraint('created_by', 'request_id', name=op.f('uq_silences_created_by'))
    )
    op.create_index('ix_silences_active_until', 'silences', ['active_until'], unique=False)
    op.create_index('ix_silences_due_at', 'silences', ['due_at'], unique=False)
    op.create_table('heartbeats',
    sa.Column('tenant', sa.String(length=64), nullable=False),
    sa.Column('name', sa.String(length=64), nullable=False),
    sa.Column('device_id', sa.String(length=64), nullable=True),
    sa.Column('timeout_s', sa.Float(), nullable=False),
    sa.Column('severity', sa.String(length=16), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('created_by', sa.String(length=64), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('last_beat_at', sa.Float(), nullable=True),
    sa.Column('is_missing', sa.Boolean(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('tenant', 'name', name=op.f('pk_heartbeats'))
    )

    if op.get_bind().dialect.name == 'sqlite':
        op.execute(f"""CREATE TRIGGER alert_events_append_only BEFORE UPDATE OF {HISTORY}
        ON alert_events BEGIN SELECT RAISE(ABORT, 'alert_events is append-only'); END""")
    else:
        op.execute("""CREATE FUNCTION alert_events_refuse() RETURNS trigger AS
        'BEGIN RAISE EXCEPTION ''alert_events is append-only''; END' LANGUAGE plpgsql""")
        op.execute(f"""CREATE TRIGGER alert_events_append_only BEFORE UPDATE OF {HISTORY}
        ON alert_events FOR EACH ROW EXECUTE FUNCTION alert_events_refuse()""")


def downgrade() -> None:
    if op.get_bind().dialect.name == 'sqlite':
        op.execute('DROP TRIGGER alert_events_append_only')
    else:
        op.execute('DROP TRIGGER alert_events_append_only ON alert_events')
        op.execute('DROP FUNCTION alert_events_refuse()')
    op.drop_table('heartbeats')
    op.drop_index('ix_silences_due_at', table_name='silences')
    op.drop_index('ix_silences_active_until', table_name='silences')
    op.drop_table('silences')
    for index in ('ix_alerts_suppressed', 'ix_alerts_waiting', 'ix_alerts_ack_expires'):
        op.drop_index(index, table_name='alerts')
    for column in ('escalated_to', 'escalation_level', 'waiting_since', 'ack_expires_at', 'flaps', 'is_suppressed',
                   'suppressed_by'):
        op.drop_column('alerts', column)
