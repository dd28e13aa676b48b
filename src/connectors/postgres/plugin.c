/* plugin: PostgreSQL in the registry, in both its roles. */
#include "probe.h"
#include "source.h"
#include "target.h"

DMSR_PLUGIN(postgres) = {
	.abi = DMSR_ABI,
	.size = sizeof(struct dmsr_plugin),
	.name = "postgres",
	.summary = "PostgreSQL 12 to 18: reads tables and their changes by logical replication, writes them by COPY and in transactions.",
	.source_options = pgsource_options,
	.target_options = pgtarget_options,
	.source = &pgsource,
	.target = &pgtarget,
	.source_probe = &pgsource_probe,
	.target_probe = &pgtarget_probe,
};
